"""Sparse codes: exact zeros, a row's code its own, and back to rows and through files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data.errors import ModelError, SchemaError, SourceError
from data.schema import Schema
from vae import codes, metrics, pipeline
from vae.codec.integer import IntegerModel
from vae.features import block, training_arrays
from vae.settings import Codes, Family, ModelSettings, TrainSettings
from vae.store import TrainedModel


@pytest.fixture(scope="module")
def found(trained: TrainedModel, table: pa.Table) -> codes.Codes:
    return codes.encode_rows(trained, table)


def test_codes_are_small_integers_with_exact_zeros(trained: TrainedModel, found: codes.Codes) -> None:
    assert found.shape == (1500, 6)
    assert found.dtype == np.int8
    assert 0.5 < metrics.sparsity(found)["mean_nonzero"] < 5.5
    assert np.abs(found).max() <= trained.layout.plan.reach


def test_codes_are_made_by_several_threads_and_the_same_by_one(
    trained: TrainedModel, table: pa.Table, found: codes.Codes, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = pa.concat_tables([table] * 4)
    torch.set_num_threads(3)
    monkeypatch.setattr(codes, "_kept", [])
    seen = set[tuple[str, int]]()
    encode = codes._encode_part

    def noted(*arguments: Any) -> codes.Codes:
        seen.add((threading.current_thread().name, torch.get_num_threads()))
        together.wait(timeout=60)
        return encode(*arguments)

    together = threading.Barrier(3)
    monkeypatch.setattr(codes, "_encode_part", noted)
    done = list[tuple[int, int]]()
    assert np.array_equal(
        codes.encode_rows(trained, long, lambda *rows: done.append(rows)), np.tile(found, (4, 1))
    )
    assert done == [(min(6_000, 1_024 * k), 6_000) for k in range(1, 7)]
    assert [threads for _, threads in sorted(seen)] == [1, 1, 1]
    assert torch.get_num_threads() == 3

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    together.reset()
    monkeypatch.setattr(codes, "_encode_part", encode)
    with pytest.raises(KeyboardInterrupt):
        codes.encode_rows(trained, long, stop)
    assert torch.get_num_threads() == 3
    assert np.array_equal(codes.encode_rows(trained, table), found)


def test_a_row_has_the_same_code_in_any_company(
    trained: TrainedModel, table: pa.Table, found: codes.Codes
) -> None:
    for start, length in ((0, 1), (7, 1), (1023, 2), (40, 500), (1499, 1)):
        alone = codes.encode_rows(trained, table.slice(start, length))
        assert np.array_equal(alone, found[start : start + length])
    order = np.random.default_rng(0).permutation(1500)
    assert np.array_equal(codes.encode_rows(trained, table.take(order)), found[order])
    assert codes.encode_rows(trained, table.slice(0, 0)).shape == (0, 6)


@pytest.mark.parametrize("family", list(Family))
def test_codes_of_all_families_are_the_same_in_any_company(
    family: Family, table: pa.Table, mixed: Callable[..., pa.Table]
) -> None:
    """A quarter of a million latents each; none of the million may differ."""
    model = ModelSettings(family=family, latents=50, width=8, encoder_width=32, encoder_depth=1)
    training = TrainSettings(steps=20, batch_rows=256, threads=1)
    made = pipeline.fit(table, Schema.from_arrow(table.schema), model=model, training=training)
    many = mixed(5_000, seed=1)
    whole = codes.encode_rows(made, many)
    assert whole.size == 250_000
    assert 0.01 < (whole != 0).mean() < 0.99
    parts = [codes.encode_rows(made, many.slice(start, 333)) for start in range(0, 5_000, 333)]
    assert np.array_equal(np.concatenate(parts), whole)
    for row in range(0, 5_000, 250):
        assert np.array_equal(codes.encode_rows(made, many.slice(row, 1)), whole[row : row + 1])


def test_progress_counts_rows(trained: TrainedModel, table: pa.Table, found: codes.Codes) -> None:
    told: list[tuple[int, int]] = []
    codes.encode_rows(trained, table, lambda *rows: told.append(rows))
    assert told == [(1024, 1500), (1500, 1500)]
    told.clear()
    codes.rows_from_codes(trained, found, lambda *rows: told.append(rows))
    assert told == [(1500, 1500)]


def test_other_columns_and_other_types_are_taken_as_they_can(
    trained: TrainedModel, table: pa.Table, found: codes.Codes
) -> None:
    needed = table.select(trained.layout.plan.names[::-1])
    assert np.array_equal(codes.encode_rows(trained, needed), found)
    narrow = table.set_column(0, "size", table["size"].cast(pa.int32()))
    assert np.array_equal(codes.encode_rows(trained, narrow), found)


def test_values_never_seen_are_no_error(trained: TrainedModel, table: pa.Table) -> None:
    strange = pa.table({
        "size": pa.array([10**12, None], pa.int64()),
        "weight": [float("nan"), 1e300],
        "color": ["ultraviolet", None],
        "large": pa.array([None, True]),
    })  # fmt: skip
    absent = pa.table({
        "size": pa.nulls(2, pa.int64()),
        "weight": pa.nulls(2, pa.float64()),
        "color": pa.nulls(2, pa.string()),
        "large": pa.array([None, True]),
    })  # fmt: skip
    found = codes.encode_rows(trained, strange)
    assert found.shape == (2, 6)
    assert np.array_equal(found, codes.encode_rows(trained, absent))  # as if they were missing


def test_missing_and_unfit_columns_are_named(trained: TrainedModel, table: pa.Table) -> None:
    with pytest.raises(SchemaError, match=r"^column 'color' is missing; the model reads "):
        codes.encode_rows(trained, table.drop_columns(["color"]))
    odd = table.set_column(0, "size", pa.array(["x"] * 1500))
    message = "^column 'size' is string, the model was trained on int64; convert it$"
    with pytest.raises(SchemaError, match=message):
        codes.encode_rows(trained, odd)


def test_rows_come_back_from_codes_alone(trained: TrainedModel, table: pa.Table, found: codes.Codes) -> None:
    restored = codes.rows_from_codes(trained, found)
    assert restored.column_names == table.column_names
    assert all(
        restored.schema.field(name).type == table.schema.field(name).type for name in restored.column_names
    )
    quality = metrics.table_quality(table, restored.select(trained.layout.plan.names))
    assert quality["large"]["accuracy"] is not None
    assert quality["large"]["accuracy"] > 0.95
    assert metrics.code_score(quality) > 0.7
    assert codes.rows_from_codes(trained, found[:0]).num_rows == 0


def test_columns_that_follow_from_others_come_back_too(trained: TrainedModel, found: codes.Codes) -> None:
    assert codes.known_columns(trained) == ["size", "weight", "color", "large", "always"]
    restored = codes.rows_from_codes(trained, found)
    assert set(restored["always"].to_pylist()) == {7}
    assert restored["id"].null_count == len(found)


def test_a_model_without_codes_says_so(trained: TrainedModel, found: codes.Codes) -> None:
    with pytest.raises(
        ModelError, match=r"^codes of 5 latents for a model of 6; give the model that made them$"
    ):
        codes.rows_from_codes(trained, found[:, :5])


def test_a_gaussian_model_has_codes_as_well(gaussian: TrainedModel, table: pa.Table) -> None:
    found = codes.encode_rows(gaussian, table)
    assert found.dtype == np.int8
    restored = codes.rows_from_codes(gaussian, found).select(gaussian.layout.plan.names)
    assert metrics.code_score(metrics.table_quality(table, restored)) > 0.5


def test_files_of_codes_come_back(trained: TrainedModel, found: codes.Codes, tmp_path: Path) -> None:
    path = codes.write_codes(tmp_path / "codes.parquet", found, trained)
    read = codes.read_codes(path, trained)
    assert np.array_equal(read.codes, found)
    assert read.model == trained.digest
    schema = pq.read_schema(path)
    kinds = [str(field.type).replace("element", "item") for field in schema]
    assert kinds == ["uint64", "list<item: uint16>", "list<item: float>"]
    assert schema.metadata == {
        b"svae.model": trained.digest.encode(),
        b"svae.latents": b"6",
        b"svae.family": b"quantized",
    }
    assert pq.read_table(path).to_pylist() == [
        {"row": row, "indices": np.flatnonzero(code).tolist(), "values": code[code != 0].tolist()}
        for row, code in enumerate(found)
    ]


def test_codes_of_another_model_are_refused(
    trained: TrainedModel, gaussian: TrainedModel, found: codes.Codes, tmp_path: Path
) -> None:
    path = codes.write_codes(tmp_path / "codes.parquet", found, trained)
    with pytest.raises(
        ModelError, match=f"its codes are of model {trained.digest[:12]}, not of {gaussian.digest[:12]}"
    ):
        codes.read_codes(path, gaussian)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("flip", ".*"),
        ("cut", ".*[Pp]arquet.*"),
        ("foreign", ".*"),
        ("index", "an index is not below 6, or a value is no small integer"),
        ("value", "an index is not below 6, or a value is no small integer"),
        ("lengths", "a row has not as many values as indices"),
        ("latents", "999999999 latents"),
    ],
)
def test_damaged_and_foreign_files_of_codes_are_refused(
    trained: TrainedModel, found: codes.Codes, tmp_path: Path, damage: str, reason: str
) -> None:
    path = codes.write_codes(tmp_path / "codes.parquet", found, trained)
    table, content = pq.read_table(path), bytearray(path.read_bytes())
    odd: dict[str, Any] = {
        "index": table.set_column(1, "indices", pa.array([[9]] * 1500, pa.list_(pa.uint16()))).set_column(
            2, "values", pa.array([[1.0]] * 1500, pa.list_(pa.float32()))
        ),
        "value": table.set_column(1, "indices", pa.array([[0]] * 1500, pa.list_(pa.uint16()))).set_column(
            2, "values", pa.array([[0.5]] * 1500, pa.list_(pa.float32()))
        ),
        "lengths": table.set_column(1, "indices", pa.array([[0]] * 1500, pa.list_(pa.uint16()))),
        "foreign": pa.table({"a": [1]}),
        "latents": table.replace_schema_metadata({**table.schema.metadata, b"svae.latents": b"999999999"}),
    }
    if damage in odd:
        pq.write_table(odd[damage], path)
    else:
        content[len(content) // 3] ^= 64
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    with pytest.raises(
        SourceError, match=rf": not a file of sparse codes \({reason}\); make it again with `svae codes`$"
    ):
        codes.read_codes(path)


def test_a_missing_file_of_codes_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no such file; make it with `svae codes`$"):
        codes.read_codes(tmp_path / "none.parquet")


def test_coded_bytes_are_near_the_rate_of_the_prior(
    trained: TrainedModel, found: codes.Codes, table: pa.Table
) -> None:
    model = IntegerModel(trained.layout.plan, trained.of_columns.stencil.integers())
    written = 8 * codes.coded_bytes(model, found, 65_536)
    coded = codes.coded_columns(trained, table)
    arrays = training_arrays(trained.layout, model, *block(coded, trained.layout.plan.names), 65_536)
    batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
    rate = trained.module.validation_bits(batch)["code_bits"].sum().item()
    assert written == pytest.approx(rate, rel=0.01, abs=80)


def test_a_model_without_latents_has_codes_of_no_width(table: pa.Table) -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("vae_conftest", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = module.SMALL.model_copy(update={"codes": Codes.none})
    model = module.train_on(table, settings, steps=20)
    empty = codes.encode_rows(model, table)
    assert empty.shape == (1500, 0)
    with pytest.raises(ModelError, match="has no sparse codes"):
        codes.rows_from_codes(model, empty)
    assert metrics.sparsity(empty)["mean_nonzero"] == 0
