"""Packages that only an extra brings, imported where they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from data.errors import ExtraError


def needed(module: str, extra: str) -> Any:
    """A module that the core does not bring.

    Raises:
        ExtraError: It is not installed; the message names the extra.

    >>> needed("json", "analysis").dumps([1])
    '[1]'
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ExtraError(
            f"{package} is not installed; this call needs: pip install '.[{extra}]' in the project's folder"
        ) from error
    return importlib.import_module(module)
