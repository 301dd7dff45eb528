"""Archives of real rows, damaged at 1,000 places and cut at 100: refused by name, and what is whole is saved."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data.errors import ArchiveError, DamagedError
from flows.cli import run
from tests.codec.test_archive import assert_same
from vae.codec import archive
from vae.codec.salvage import Lost

FIXTURES = Path(__file__).parents[1] / "fixtures"
ARCHIVES = {"flights-2000-v1.svae": 0, "readings-2000-v6.svae": 5}
"""And of how many, a tenth being tried, some rows can be saved at least: the first has one block, the other three."""
FLIPS, CUTS = 500, 50
PLACE = re.compile(
    r"^(?P<path>.*): (header|tables|model|index|stream of (the codes|column '\w+')(, block \d+)? \(rows \d+ to \d+\)) "
    r"is damaged: .*; restore the file from a copy$|: not an archive"
)
CUT = re.compile("the file is truncated|not an archive")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ARCHIVES)
def test_of_1000_flipped_bytes_each_is_refused_by_its_place(name: str, tmp_path: Path) -> None:
    whole, path = (FIXTURES / name).read_bytes(), tmp_path / "t.svae"
    with archive.open(FIXTURES / name) as opened:
        rows = opened.read()
    rng = np.random.default_rng(0)
    saved = 0
    for attempt, place in enumerate(rng.choice(len(whole), FLIPS, replace=False)):
        path.write_bytes(flipped(whole, place, rng))
        with pytest.raises(ArchiveError) as refused, archive.open(path, threads=1) as opened:
            opened.verify()
        assert PLACE.search(str(refused.value)), str(refused.value)
        saved += attempt % 10 == 0 and salvaged(path, rows)
    assert saved >= ARCHIVES[name]


@pytest.mark.parametrize("name", ARCHIVES)
def test_cut_at_100_places_it_is_refused(name: str, tmp_path: Path) -> None:
    whole, path = (FIXTURES / name).read_bytes(), tmp_path / "t.svae"
    for length in np.random.default_rng(1).choice(len(whole), CUTS, replace=False):
        path.write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match=CUT):
            archive.open(path)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("name", ARCHIVES)
def test_the_command_refuses_it_by_its_place_and_writes_nothing(
    name: str, ending: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, path = (FIXTURES / name).read_bytes(), tmp_path / "t.svae"
    rng = np.random.default_rng([2, *ending.encode()])
    flips = [flipped(whole, place, rng) for place in rng.choice(len(whole), 25, replace=False)]
    cuts = [whole[:length] for length in rng.choice(len(whole), 5, replace=False)]
    for data in flips + cuts:
        path.write_bytes(data)
        assert run(["decompress", str(path), "-o", str(tmp_path / "new" / f"made.{ending}")]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        told = err.splitlines()[-1].removeprefix("svae: ")
        assert told.startswith(f"{path}: ")
        assert (PLACE if len(data) == len(whole) else CUT).search(told), err
        assert [entry.name for entry in tmp_path.iterdir()] == ["t.svae"]
        assert path.read_bytes() == data


def flipped(whole: bytes, place: int, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    data[place] ^= int(rng.integers(1, 256))
    return bytes(data)


def salvaged(path: Path, rows: pa.Table) -> bool:
    """Whether some rows were saved; those that were are true, and the others told."""
    lost: list[Lost] = []
    try:
        with archive.open(path, threads=1) as opened:
            batches = list(opened.salvage(on_lost=lost.append))
    except DamagedError:
        return False
    kept = np.ones(rows.num_rows, bool)
    for gone in lost:
        kept[gone.start : gone.stop] = False
    assert not kept.all()
    assert_same(pa.Table.from_batches(batches, rows.schema), rows.filter(pa.array(kept)))
    return bool(kept.any())
