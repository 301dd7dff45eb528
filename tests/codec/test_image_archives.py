"""Tables with columns of images, as archives: coded by a model or by others; exact or within a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import ArchiveError, DamagedError
from data.grid import ColumnGrid, TableGrid
from data.gridfit import fit_table
from data.imagegrid import levels_within
from data.images import image_field
from vae.codec import archive, writer
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codec.pixels import PixelPlan
from vae.codec.plan import Plan
from vae.codec.salvage import Lost

Codes = npt.NDArray[np.int8]
SHAPE = (4, 3, 3)
VALUES = 36
LABELS = ("cat", "dog", "owl")


def image_array(images: list[list[int] | None]) -> pa.Array:
    return pa.array(images, pa.list_(pa.uint8(), VALUES))


def image_table(rows: int = 23, nulls: bool = True, seed: int = 3) -> pa.Table:
    """Images, some of them null, with a label and a text beside them."""
    random = np.random.default_rng(seed)
    greys = random.integers(0, 256, (rows, VALUES)).tolist()
    images = [None if nulls and k % 7 == 2 else grey for k, grey in enumerate(greys)]
    schema = pa.schema([
        pa.field("label", pa.string()), image_field("image", SHAPE), pa.field("note", pa.string()),
    ])  # fmt: skip
    columns = [
        [LABELS[k % 3] for k in range(rows)],
        image_array(images),
        [f"note {k * k}" for k in range(rows)],
    ]
    return pa.Table.from_arrays([pa.array(columns[0]), columns[1], pa.array(columns[2])], schema=schema)


def model_of(grid: ColumnGrid, latents: int = 2) -> ImageModel:
    """A model of random weights."""
    height, width, channels = grid.shape
    plan = PixelPlan(
        name=grid.name, height=height, width=width, channels=channels, levels=grid.high + 1, latents=latents,
        units=3, maps=2,
    )  # fmt: skip
    own = Plan(latents=latents, width=1, prior_width=3, columns=())
    random = np.random.default_rng(0)

    def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.int16]]:
        return {name: random.integers(-20, 21, shape).astype(np.int16) for name, shape in shapes.items()}

    return ImageModel(plan, IntegerModel(own, draw(own.shapes())), draw(plan.shapes()))


def codes_for(rows: int, latents: int = 2) -> Codes:
    return np.random.default_rng(4).integers(-1, 2, (rows, latents)).astype(np.int8)


def write(
    table: pa.Table, path: Path, bound: float = 0.0, latents: int = 2, grid: TableGrid | None = None
) -> None:
    """An archive whose images are coded by a model of random weights; blocks of 2 images, groups of 8."""
    bounds = {"image": bound} if bound else None
    grid = grid or fit_table(table, bounds)
    model = model_of(grid["image"], latents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        patch.setattr(writer, "IMAGE_BLOCK_VALUES", 2 * VALUES)
        patch.setattr(writer, "IMAGE_GROUP_VALUES", 8 * VALUES)
        archive.write(
            table, path, bounds=bounds, model=model, grid=grid, codes=codes_for(len(table), latents), fitted=True
        )  # fmt: skip


@pytest.mark.parametrize("latents", [0, 2])
def test_a_table_with_images_comes_back_whole_and_in_parts(latents: int, tmp_path: Path) -> None:
    table, path = image_table(), tmp_path / "t.svae"
    write(table, path, latents=latents)
    assert path.read_bytes()[8] == 7
    with archive.open(path) as opened:
        header = opened.header
        assert (header.block_rows, header.group_blocks, header.groups) == (2, 4, 3)
        assert [c.coder for c in opened.report().per_column] == ["rival", "neural", "rival"]
        opened.verify()
        opened.verify(against=table)
        whole = opened.read()
        assert whole.equals(table)
        assert whole.schema.equals(table.schema, check_metadata=True)
        for start, stop in [(0, 1), (5, 7), (7, 9), (15, 17), (3, 20), (22, 23), (9, 9)]:
            assert opened.read(rows=(start, stop)).equals(table.slice(start, stop - start))
            some = opened.read(["note", "image"], (start, stop))
            assert some.equals(table.select(["note", "image"]).slice(start, stop - start))
        for name in table.column_names:
            assert opened.read([name]).equals(table.select([name]))
        assert np.array_equal(opened.dense_codes(), codes_for(23, latents))
        assert np.array_equal(opened.dense_codes((9, 14)), codes_for(23, latents)[9:14])
        if latents:
            other = image_table(seed=9)
            with pytest.raises(ArchiveError, match="image"):
                opened.verify(against=other)


@pytest.mark.parametrize("bound", [1, 4, 4.9, 300])
def test_within_a_bound_images_come_back_within_it_and_black_stays_black(
    bound: float, tmp_path: Path
) -> None:
    table, path = image_table(), tmp_path / "t.svae"
    black = image_array([[0] * VALUES, [255] * VALUES, [3] * VALUES])
    table = pa.concat_tables([table, table.slice(0, 3).set_column(1, table.schema.field(1), black)])
    write(table, path, bound)
    with archive.open(path) as opened:
        restored = opened.read()
        column = opened.report().per_column[1]
    assert restored.drop_columns(["image"]).equals(table.drop_columns(["image"]))
    assert restored["image"].is_null().equals(table["image"].is_null())
    before, after = (
        np.array(cast(Any, t["image"].combine_chunks()).flatten()).astype(int) for t in (table, restored)
    )
    assert np.abs(before - after).max() <= bound
    assert column.max_error == np.abs(before - after).max() > 0
    assert not after.reshape(-1, VALUES)[-3].any()
    assert (after[before == 0] == 0).all()


@given(bound=st.integers(0, 300) | st.floats(0, 300))
def test_levels_are_within_the_bound_and_begin_with_black(bound: float) -> None:
    levels, step = levels_within(bound)
    greys = np.arange(256)
    symbols = np.minimum((greys + step // 2) // step, levels - 1)
    restored = np.minimum(symbols * step, 255)
    assert np.abs(greys - restored).max() <= bound
    assert restored[0] == 0
    assert 2 <= levels <= 256
    assert set(symbols.tolist()) == set(range(levels)) or bound >= 255  # then all are black


@pytest.mark.parametrize(
    ("column", "message"),
    [("image", "stream of column 'image', block 5 (rows 10 to 11)"), (None, "stream of the codes, block 5")],
)
def test_of_a_damaged_block_the_others_are_saved(column: str | None, message: str, tmp_path: Path) -> None:
    table, path = image_table(), tmp_path / "t.svae"
    write(table, path)
    data = bytearray(path.read_bytes())
    with archive.open(path) as opened:
        number = opened.header.stream_of_block(1, 1) + (column is not None)
        entry = opened._parts.container.stream(number)
    data[entry.position + entry.length // 2] ^= 4
    path.write_bytes(data)
    lost: list[Lost] = []
    with archive.open(path) as opened:
        with pytest.raises(DamagedError) as refused:
            opened.read()
        assert message in str(refused.value)
        saved = pa.Table.from_batches(list(opened.salvage(on_lost=lost.append)), opened.schema)
        assert opened.read(["label", "note"]).equals(table.select(["label", "note"]))
        assert opened.read(rows=(12, 23)).equals(table.slice(12, 11))
    assert [(gone.start, gone.stop) for gone in lost] == [(10, 12)]
    assert message in lost[0].why
    assert saved.equals(pa.concat_tables([table[:10], table[12:]]))


@pytest.mark.parametrize("with_model", [True, False])
def test_images_that_are_all_null_and_no_rows_at_all_come_back(with_model: bool, tmp_path: Path) -> None:
    table, path = image_table(), tmp_path / "t.svae"
    nothing = table.set_column(1, table.schema.field(1), image_array([None] * len(table)))
    for made in (nothing, table.slice(0, 0), nothing.slice(0, 1)):
        if with_model:
            write(made, path)
        else:
            archive.write(made, path, bounds={"image": 4.0})
        with archive.open(path) as opened:
            assert opened.read().equals(made)
            opened.verify(against=made)


@pytest.mark.parametrize("bound", [0, 4])
def test_slices_and_chunks_of_arrow_arrays_are_read_where_they_begin(bound: int, tmp_path: Path) -> None:
    table, path = image_table(40), tmp_path / "t.svae"
    cut = pa.concat_tables([table.slice(5, 9), table.slice(20, 13)])
    assert cut["image"].num_chunks == 2
    write(cut, path, bound)
    with archive.open(path) as opened:
        found = opened.read()
    if not bound:
        assert found.equals(cut)
    plain = pa.Table.from_pylist(cut.to_pylist(), cut.schema)
    write(plain, tmp_path / "plain.svae", bound)
    with archive.open(tmp_path / "plain.svae") as opened:
        assert opened.read().equals(found)


def test_a_null_within_an_image_leaves_them_to_the_general_coders(tmp_path: Path) -> None:
    table, path = image_table(), tmp_path / "t.svae"
    images = table["image"].to_pylist()
    images[4] = [None, *images[4][1:]]
    broken = table.set_column(1, table.schema.field(1), image_array(images))
    assert fit_table(broken)["image"].kind == "opaque"
    assert fit_table(table)["image"].kind == "image"  # nulls under images that are null themselves
    archive.write(broken, path)
    with archive.open(path) as opened:
        assert opened.read().equals(broken)
    with pytest.raises(ArchiveError, match="not written: it would not have read back: column 'image'"):
        write(broken, tmp_path / "other.svae", grid=fit_table(table))  # the grid of another table
    assert not (tmp_path / "other.svae").exists()


@pytest.mark.parametrize("bound", [0, 4])
def test_of_two_columns_of_images_the_model_takes_its_own(bound: int, tmp_path: Path) -> None:
    table, path = image_table(), tmp_path / "t.svae"
    other = image_table(seed=11)["image"]
    table = table.append_column(image_field("other", SHAPE), other)
    write(table, path, bound)
    with archive.open(path) as opened:
        assert [c.coder for c in opened.report().per_column] == ["rival", "neural", "rival", "rival"]
        assert opened.read(["other"], (3, 17)).equals(table.select(["other"]).slice(3, 14))
        opened.verify(against=table)
        assert opened.read(["label", "note", "other"]).equals(table.drop_columns(["image"]))


def test_a_bound_without_a_model_is_kept_by_the_general_coders(tmp_path: Path) -> None:
    table, path = image_table(), tmp_path / "t.svae"
    archive.write(table, path, bounds={"image": 4.0})
    assert path.read_bytes()[8] == 7
    with archive.open(path) as opened:
        assert {c.coder for c in opened.report().per_column} == {"rival"}
        found = opened.read()
        assert opened.read(["image"], (4, 19)).equals(found.select(["image"]).slice(4, 15))
    assert found["image"].is_null().equals(table["image"].is_null())
    assert not found.equals(table)
    archive.write(table, path)
    assert path.read_bytes()[8] == 1
