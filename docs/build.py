"""The API's page, made of docstrings: `make docs`. A warning is an error."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import vae

MODULES = ("vae", r"!vae\..+", "vae.settings", "data.errors")
"""What is public: the names of `vae`, what `vae.compress` is told, and what may be raised."""


def build(folder: Path) -> None:
    """Write the pages to `folder`."""
    for name in vae.__all__:
        getattr(vae, name)  # imported when it is first asked for
    pdoc.render.configure(docformat="google", include_undocumented=False, show_source=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
