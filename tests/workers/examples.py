"""Runs examples one after the other on the same ranks: starting ranks takes longer than most examples do.

    examples.py EXAMPLE.py ARGUMENT ... -- EXAMPLE.py ARGUMENT ...

What a rank prints in an example comes at the example's end, below "=== EXAMPLE".
"""

import contextlib
import io
import itertools
import runpy
import sys
from pathlib import Path


def run(script, *arguments):
    sys.argv = [script, *arguments]
    sys.path.insert(0, str(Path(script).parent))
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        if printed.getvalue():  # of rank 0, mostly
            print(f"=== {Path(script).stem}\n{printed.getvalue()}", end="", flush=True)
    if "torch" in sys.modules:
        import torch.distributed as dist

        if dist.is_initialized():  # Lightning leaves that to the process's end
            dist.destroy_process_group()


def main():
    for apart, words in itertools.groupby(sys.argv[1:], lambda word: word == "--"):
        if not apart:
            run(*words)


main()
