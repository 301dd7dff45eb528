"""What the fuzzer works with: archives in parts are the archives, and nothing raised escapes it. See `tests/fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.errors import DamagedError
from tests.codec.test_archive import assert_same
from tests.fuzz.parts import Parts, flat, put_together, take_apart, unflat
from tests.fuzz.seeds import seeds
from tests.fuzz.target import read
from vae.codec import archive
from vae.codec.archive import Archive

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parts]:
    return seeds(tmp_path_factory.mktemp("seeds"))


def test_its_archives_are_of_all_kinds(made: dict[str, Parts], tmp_path: Path) -> None:
    assert sorted(parts.version[0] for parts in made.values()) == [1, 2, 4, 5, 5, 6, 6, 7, 7, 8, 9]
    coders = set[str]()
    for parts in made.values():
        assert read(parts, tmp_path / "t.svae")
        with archive.open(tmp_path / "t.svae") as opened:
            coders |= {column.coder for column in opened.report().per_column}
    assert coders == {"neural", "derived", "rival"}


def test_parts_are_the_archive(made: dict[str, Parts], tmp_path: Path) -> None:
    for parts in made.values():
        assert unflat(flat(parts)) == parts
        assert take_apart(put_together(parts)) == parts
    for path in FIXTURES.glob("*.svae"):
        again = tmp_path / path.name
        again.write_bytes(put_together(take_apart(path.read_bytes())))
        with archive.open(path) as before, archive.open(again) as after:
            assert_same(after.read(), before.read())


def test_what_is_no_parts_is_none() -> None:
    for data in (b"", b"\1", b"\0" * 5, b"\3ab", b"\0" * 5 + b"\1\5"):
        assert unflat(data) is None
    assert unflat(b"\0" * 8) == Parts(b"", b"", b"", b"", b"", (), (b"", b""))


def test_checksums_are_made_right(made: dict[str, Parts], tmp_path: Path) -> None:
    parts = made["newest"]
    broken = parts._replace(model=(parts.model[0], b"\xff" * 9, *parts.model[2:]))
    (tmp_path / "t.svae").write_bytes(put_together(broken))
    with (
        archive.open(tmp_path / "t.svae") as opened,
        pytest.raises(DamagedError, match="model is damaged: ") as caught,
    ):
        opened.read()
    assert "before weights cannot be read" in str(caught.value)
    assert not read(broken, tmp_path / "t.svae")


def test_any_other_error_is_a_finding(
    made: dict[str, Parts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise IndexError("out of bounds")

    monkeypatch.setattr(Archive, "verify", fails)
    with pytest.raises(IndexError):
        read(made["stored"], tmp_path / "t.svae")
