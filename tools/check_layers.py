#!/usr/bin/env python3
"""Who may include whom in csrc/: the table of docs/architecture.md, checked.

Prints one line for each include that breaks a rule and exits with 1 if there is any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LAYERS: dict[str, set[str]] = {
    "core": set(),
    "pattern": {"core"},
    "kernels": {"core"},
    "transport": {"core"},
    "codec": {"core", "kernels"},
    "records": {"core"},
    "algo": {"core", "pattern", "kernels", "codec", "transport"},
    "comm": {"core", "kernels", "codec", "transport", "algo"},
    "bind": {"core", "pattern", "kernels", "codec", "records", "transport", "algo", "comm"},
}
# Algorithms know transports by their interface only.
INTERFACES = {"algo": {"transport/transport.h", "transport/net.h"}}
# Foreign headers and the only files that may include them.
FOREIGN = [
    (re.compile(r"mpi\.h$"), re.compile(r"transport/mpi\.(h|cc)$")),
    (re.compile(r"(cuda|cub/|thrust/|nccl)"), re.compile(r"_cuda\.cu$")),
    (re.compile(r"(pybind11/|Python\.h$)"), re.compile(r"bind/[^/]+$")),
    (re.compile(r"(torch|ATen|c10)/"), re.compile(r"(?!)")),
]
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def includes(source: Path) -> Iterator[tuple[int, str, bool]]:
    """Line number, header, and whether it was quoted, of each include."""
    for number, line in enumerate(source.read_text().splitlines(), 1):
        if found := INCLUDE.match(line):
            yield number, found[2], found[1] == '"'


def complaint(name: str, header: str, quoted: bool) -> str | None:
    """Why `name` (a path below csrc/) may not include `header`, or None."""
    for headers, allowed in FOREIGN:
        if headers.match(header) and not allowed.search(name):
            return f"only {allowed.pattern} may include it" if allowed.pattern != "(?!)" else "nothing may include it"
    if not quoted:
        return None
    layer, other = name.split("/")[0], header.split("/")[0]
    if other not in LAYERS:
        return 'write it as "layer/file.h"'
    if other == layer:
        return None
    if other not in LAYERS[layer]:
        return f"{layer} may include {', '.join(sorted(LAYERS[layer])) or 'nothing of ours'}"
    if other == "transport" and layer in INTERFACES and header not in INTERFACES[layer]:
        return f"{layer} may include of transport only {', '.join(sorted(INTERFACES[layer]))}"
    return None


def complaints(csrc: Path) -> list[str]:
    """All broken rules below csrc, one line each."""
    lines = []
    for source in sorted(p for p in csrc.rglob("*") if p.suffix in {".h", ".cc", ".cu", ".cuh", ".inl"}):
        name = source.relative_to(csrc).as_posix()
        if name.split("/")[0] not in LAYERS:
            lines.append(f"{name}: no such room; the rooms are {', '.join(LAYERS)}")
            continue
        for number, header, quoted in includes(source):
            if why := complaint(name, header, quoted):
                lines.append(f"{name}:{number}: includes {header}: {why}")
    return lines


def main() -> int:
    csrc = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent / "csrc"
    found = complaints(csrc)
    print("\n".join(found) or "layers: ok")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
