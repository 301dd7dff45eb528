"""What the command line prints: one JSON object or readable lines on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from rich.console import Console
from rich.table import Table

Advance = Callable[[float, str], None]
"""Takes the share done (0 to 1) and a few words on what is being done."""

PLAIN_SECONDS = 10.0

# Names of columns and files are text: neither `[m]` nor `:key:` means anything.
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


class Output:
    """Standard output of one command.

    With `--json` nothing else may get there, whatever library prints it: the file descriptor itself is led to standard
    error for as long as the command runs, and the object goes to the original at the end.
    """

    shown: ClassVar[bool] = False
    """Whether the object of the command that runs is out."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._original: int | None = None

    def __enter__(self) -> Self:
        if self.as_json:
            sys.stdout.flush()
            self._original = os.dup(1)
            os.dup2(2, 1)
        return self

    def __exit__(self, *failure: object) -> None:
        if self._original is not None:
            sys.stdout.flush()
            os.dup2(self._original, 1)
            os.close(self._original)
            self._original = None

    def show(self, result: Mapping[str, Any], readable: Callable[[Console], None] | None = None) -> None:
        """Print a result: the object itself with `--json`, else what `readable` makes of it."""
        if self._original is not None:
            _print_json(result, self._original)
            Output.shown = True
            return
        console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
        if readable:
            readable(console)
        else:
            key_values(console, result)


def print_failure(failure: Mapping[str, Any]) -> None:
    """The JSON object of a command that failed, unless it had one out already.

    The command has failed all the same where standard output takes no more.
    """
    with contextlib.suppress(OSError):
        if not Output.shown:
            _print_json(failure, 1)


def _print_json(result: Mapping[str, Any], descriptor: int) -> None:
    sys.stdout.flush()
    text = json.dumps(result, default=_as_json, allow_nan=False) + "\n"
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as stream:
        stream.write(text)


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if hasattr(value, "item"):  # numpy scalars
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")


def key_values(console: Console, values: Mapping[str, Any]) -> None:
    """Names and values in two columns."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        console.print(f"{name:<{width}}  {number(value)}")


def table(console: Console, columns: list[str], rows: list[list[Any]]) -> None:
    """A plain table; numbers to the right."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        numeric = any(isinstance(row[index], (int, float)) for row in rows)
        grid.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(number(cell) for cell in row))
    console.print(grid)


def number(value: Any) -> str:
    """A cell as a person reads it.

    >>> number(4047716), number(0.123456), number(None)
    ('4,047,716', '0.123', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return str(value)


def note(text: str) -> None:
    """What the user should know although all is well: a line on standard error."""
    errors.print(f"note: {text}")


def progress(title: str) -> contextlib.AbstractContextManager[Advance]:
    """A bar on a terminal; elsewhere a line as each part begins, one every ten seconds, and one when all is done."""
    return _bar(title) if errors.is_terminal else _lines(title)


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Advance]:
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def advance(share: float, words: str) -> None:
            bar.update(task, completed=share, description=f"{title}: {words}" if words else title)

        yield advance


@contextlib.contextmanager
def _lines(title: str) -> Iterator[Advance]:
    last = time.monotonic()
    told: tuple[str, float] | None = None

    def advance(share: float, words: str) -> None:
        nonlocal last, told
        now = time.monotonic()
        part = next((word for word in words.split() if word.isalpha()), "")
        if told is None or part != told[0] or now - last >= PLAIN_SECONDS:
            last, told = now, (part, share)
            errors.print(f"{title}: {share:4.0%} {words}")

    yield advance
    if told is not None and told[1] < 1:
        errors.print(f"{title}: 100% done")
