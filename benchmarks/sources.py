"""Which modules of `vae` a benchmark's figures depend on: all that it imports, and that these import in turn.

Left out is only what a benchmark names: modules for other kinds of data, or that change no figure. What they alone
import is then out as well. So a new module counts wherever it is used, until somebody says that it does not.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]

TABLES = (
    *(f"vae/{name}.py" for name in ("model", "beside", "codes_only", "planning")),
    "vae/codec/search.py",
    "vae/codec/sum_search.py",
)
"""What is for tables alone."""
IMAGES = ("vae/images.py", "vae/codec/images.py")
"""What is for images alone."""
TEXTS = ("vae/texts.py", "vae/words.py", "vae/codec/texts.py")
"""What is for texts alone."""
TOLD = ("vae/report.py", "vae/mosaic.py", "vae/checkpoint.py")
"""Pages, and trainings that were killed."""
READ = (
    *(
        f"vae/codec/{name}.py"
        for name in ("reader", "against", "salvage", "engines", "needs", "summary", "shares")
    ),
    "vae/extras.py",
)
"""What reads archives, or says what is in them, and makes none of their bytes."""


def reached(start: str, without: Iterable[str] = ()) -> tuple[str, ...]:
    """Files of `vae` that a file imports, and these in turn, from the project's root; functions' own imports as well.

    >>> reached("vae/sections.py")
    ()
    >>> reached("vae/mosaic.py")
    ('vae/sections.py',)
    """
    found, left = set[str](), [start]
    while left:
        new = imported(left.pop()) - found - set(without)
        found |= new
        left += new
    return tuple(sorted(found))


@functools.cache
def imported(file: str) -> frozenset[str]:
    """Files of `vae` that a file imports itself."""
    names = set[str]()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = (f"{name.replace('.', '/')}.py" for name in names if name.startswith("vae."))
    return frozenset(file for file in files if (ROOT / file).is_file())


def digest(files: Iterable[str]) -> str:
    """SHA-256 of what runs of some files, named from the project's root."""
    state = hashlib.sha256()
    for name in sorted(files):
        code = what_runs((ROOT / name).read_text(encoding="utf-8"))
        state.update(f"{name}\0{code}\0".encode())
    return state.hexdigest()


@functools.cache
def what_runs(source: str) -> str:
    """A module without comments, docstrings and layout: they change no figure.

    >>> what_runs("def f():  'What it is for.'; return 1  # one") == what_runs("def f(): return 1")
    True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # that of an expression is one
            body[:] = [line for line in body if not _is_text(line)]
    return ast.unparse(tree)


def _is_text(line: ast.stmt) -> bool:
    return (
        isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
        and isinstance(line.value.value, str)
    )
