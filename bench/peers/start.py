"""Starts rank.py once a rank with what torch's store needs: "start.py RANKS LIBRARY". Ends when they have."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def main() -> int:
    ranks, library = int(sys.argv[1]), sys.argv[2]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    script = str(Path(__file__).with_name("rank.py"))
    children = [
        subprocess.Popen([sys.executable, script, library], env={**os.environ, **world, "RANK": str(rank)})
        for rank in range(ranks)
    ]
    return max(abs(child.wait()) for child in children)


if __name__ == "__main__":
    sys.exit(main())
