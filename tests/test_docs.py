"""What `docs/format.md` quotes is what the code has: constants, tables, and every key with its default."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from data import grid, imagegrid, lattice
from data.grid import ColumnGrid, State
from vae.codec import (
    container,
    entropy,
    frontend,
    integer,
    intervals,
    kernel,
    packing,
    parts,
    pixels,
    plan,
    structure,
    weights,
)
from vae.codec.container import ColumnCoding, Header, ModelReference
from vae.codec.entropy import exp_table, scale_table, sigmoid_table, squash_table
from vae.codec.pixels import PixelPlan
from vae.codec.plan import BASES, Head, Item, Linear, Plan
from vae.codec.structure import Derived, Term
from vae.codec.summary import StoredColumn, StoredReport

TEXT = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
MODULES = (
    container, grid, imagegrid, lattice, structure, entropy, intervals, frontend, kernel, plan, integer, weights, parts,
    pixels, packing,
)  # fmt: skip
CONSTANTS = re.findall(r"^([A-Z_]+) = (-?[\d*]+(?: - [\d*]+)?)(?:  .*)?$", TEXT, re.MULTILINE)
RECORDS: tuple[type[BaseModel], ...] = (
    Header, ModelReference, ColumnCoding, StoredReport, StoredColumn, ColumnGrid, Derived, Term, Plan, Item, Linear,
    PixelPlan,
)  # fmt: skip
TABLES = {"exp": exp_table, "sigmoid": sigmoid_table, "scale": scale_table, "squash": squash_table}


def value(text: str) -> int:
    """An integer written with powers and one difference.

    >>> value("2**31 - 2**22")
    2143289344
    """
    first, *rest = (
        int(base) ** int(power or 1) for base, power in re.findall(r"(-?\d+)(?:\*\*(\d+))?", text)
    )
    return first - sum(rest)


def defaults(record: type[BaseModel]) -> dict[str, Any]:
    """Every key with its default as JSON; "required" if there is none."""
    return {
        key: "required" if field.is_required() else json.loads(json.dumps(to_jsonable_python(field.default)))
        for key, field in record.model_fields.items()
    }


@pytest.mark.parametrize(("name", "written"), CONSTANTS)
def test_a_constant_is_the_codes(name: str, written: str) -> None:
    found = {module.__name__: getattr(module, name) for module in MODULES if hasattr(module, name)}
    assert found
    assert set(found.values()) == {value(written)}


def test_all_constants_are_looked_at() -> None:
    section = TEXT.split("## 14. Constants")[1].split("```")[1]
    assert [name for name, _ in CONSTANTS] == re.findall(r"^(\w+) =", section, re.MULTILINE)
    assert len(CONSTANTS) > 30


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_its_digest(name: str) -> None:
    (digest,) = re.findall(rf"^\| `{name}` \|.*`([0-9a-f]{{64}})` \|$", TEXT, re.MULTILINE)
    assert digest == hashlib.sha256(TABLES[name]().astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("record", RECORDS)
def test_every_key_is_there_with_its_default(record: type[BaseModel]) -> None:
    section = TEXT.split(f"#### `{record.__name__}`\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| (required|`[^`]*`) \|", section, re.MULTILINE)
    written = {
        key: default if default == "required" else json.loads(default.strip("`")) for key, default in rows
    }
    assert written == defaults(record)


def test_every_record_is_looked_at() -> None:
    assert re.findall(r"^#### `(\w+)`$", TEXT, re.MULTILINE) == [record.__name__ for record in RECORDS]


def test_enumerations_and_magic_bytes() -> None:
    assert ", ".join(f"{state.value} {state.name}" for state in State) in TEXT
    assert ", ".join(f"{head.value} {head.name}" for head in Head) in TEXT
    assert ", ".join(f"`{group}`" for group in integer.GROUPS) in TEXT
    assert BASES == ("center", "previous", "extrapolated", "linear", "recalled")
    for magic in (container.MAGIC, container.END_MAGIC):
        assert f"| 8 | `{magic.hex(' ').upper()}` |" in TEXT
