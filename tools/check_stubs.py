#!/usr/bin/env python3
"""pycoll/_core.pyi against the built module: every name is in both, and every public name of pycoll has a docstring.

Prints one line for each function or class missing from the stub, each declared one that is gone, and each public name
without documentation; exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "pycoll" / "_core.pyi"


def stub_names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Dotted public names that a stub declares."""
    names = set()
    for node in body:
        if isinstance(node, ast.ClassDef):
            names |= {prefix + node.name} | stub_names(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            names.add(prefix + node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(prefix + node.target.id)
    return {name for name in names if not name.rpartition(".")[2].startswith("_")}


def module_names(module: object) -> set[str]:
    """Dotted public names that the built module has."""
    names = set()
    for name, value in vars(module).items():
        if name.startswith("_"):
            continue
        names.add(name)
        if isinstance(value, type):
            names |= {f"{name}.{member}" for member in vars(value) if not member.startswith("_")}
    return names


def undocumented(module: object) -> list[str]:
    """Public names of the package, and methods of its classes, that have no docstring."""
    found = []
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if not callable(value):
            continue
        if not (value.__doc__ or "").strip():
            found.append(name)
        if isinstance(value, type) and value.__module__.startswith("pycoll"):
            found += [
                f"{name}.{member}"
                for member, body in vars(value).items()
                if not member.startswith("_") and callable(body) and not body.__doc__
            ]
    return found


def main() -> int:
    import pycoll
    from pycoll import _core

    stub, built = stub_names(ast.parse(STUB.read_text()).body), module_names(_core)
    lines = [f"_core.pyi lacks {name}" for name in sorted(built - stub)]
    lines += [f"_core.pyi declares {name}, which the module has not" for name in sorted(stub - built)]
    lines += [f"pycoll.{name} has no docstring" for name in undocumented(pycoll)]
    print("\n".join(lines) or "stubs: ok")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())
