"""The evaluation: its numbers agree with each other and with what is on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.gridfit import fit_table
from vae import codes, evaluate, metrics, pipeline
from vae.codec import archive, summary, writer
from vae.codec.integer import IntegerModel
from vae.codec.summary import measure_rivals
from vae.evaluate import Evaluation
from vae.features import block
from vae.store import TrainedModel


@pytest.fixture(scope="module")
def split(table: pa.Table) -> np.ndarray:
    return np.repeat(np.array([0, 2, 1], np.uint8), len(table) // 3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def written(trained: TrainedModel, table: pa.Table, place: Path) -> Path:
    """An archive with the model in it, whether that pays or not."""
    path = place / "t.svae"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "CLOSE_CALL", 1e9)
        pipeline.compress(table, path, model=trained)
    return path


@pytest.fixture(scope="module")
def found(
    trained: TrainedModel, table: pa.Table, split: np.ndarray, place: Path, written: Path
) -> Evaluation:
    return evaluate.evaluate(trained, table, place / "report", split=split, archive_path=written)


def test_numbers_and_figures_are_on_disk(found: Evaluation, place: Path) -> None:
    names = ["bits.png", "codes.png", "evaluation.json", "originals.png", "training.png"]
    assert sorted(path.name for path in (place / "report").iterdir()) == names
    assert sorted(path.name for path in found.figures) == [name for name in names if name.endswith(".png")]
    assert json.loads((place / "report" / "evaluation.json").read_text()) == found.numbers


def test_every_stage_is_told_as_it_begins(
    trained: TrainedModel, table: pa.Table, tmp_path: Path, written: Path
) -> None:
    told: list[dict[str, Any]] = []
    evaluate.evaluate(trained, table, tmp_path, archive_path=written, on_progress=told.append)
    assert [event["phase"] for event in told] == list(evaluate.STAGES)
    assert [event["step"] / event["steps"] for event in told] == [0, 0.2, 0.4, 0.6, 0.8]
    del told[:]
    evaluate.evaluate(trained, table, tmp_path, on_progress=told.append)
    assert [event["phase"] for event in told] == ["codes", "bits", "reconstruction", "figures"]


def test_bits_add_up_and_are_those_of_the_likelihood(found: Evaluation) -> None:
    bits = found.numbers["bits"]
    assert bits["total"] == pytest.approx(bits["code"] + sum(bits["columns"].values()))
    assert found.numbers["likelihood"] == {"hard": bits["total"], "elbo": None, "iwae": None}
    assert found.numbers["rows"] == {"all": 1500, "evaluated": 500, "held_out": 500}


def test_bits_of_the_model_are_those_that_the_codec_writes(trained: TrainedModel, table: pa.Table) -> None:
    coded = codes.coded_columns(trained, table)
    bits = evaluate.model_bits(trained, coded, np.arange(len(table)))
    model = IntegerModel(trained.layout.plan, trained.of_columns.stencil.integers())
    streams = model.encode_block(*block(coded, trained.layout.plan.names), codes.encode_rows(trained, table))
    sizes = [8 * len(stream) / len(table) for stream in streams]
    for size, expected in zip(sizes, [bits["code"], *bits["columns"].values()], strict=True):
        assert size == pytest.approx(expected, rel=0.01, abs=0.06)  # 9 bytes end a stream


def test_an_archive_gives_back_what_it_was_given(found: Evaluation, table: pa.Table) -> None:
    restored = found.numbers["restored"]["columns"]
    assert list(restored) == table.column_names
    assert restored["size"]["max_error"] == 0
    assert restored["id"]["accuracy"] == 1


def test_sizes_and_ratios_are_those_of_the_files(
    found: Evaluation, table: pa.Table, trained: TrainedModel, written: Path
) -> None:
    size, whole = found.numbers["size"], written.stat().st_size
    model = len(pipeline.integer_model(trained).to_bytes())
    others = {"source": size["source"], **evaluate.other_sizes(table, trained.grid)}
    assert list(others) == ["source", "csv", "parquet_snappy", "parquet_zstd19", "pcodec"]
    assert size == {
        "archive": whole,
        "model": model,
        **others,
        **{f"ratio_to_{name}": bytes_ / whole for name, bytes_ in others.items()},
        **{f"ratio_to_{name}_without_model": bytes_ / (whole - model) for name, bytes_ in others.items()},
    }


def test_other_tools_are_given_the_same_grid_and_slow_ones_if_asked(table: pa.Table) -> None:
    grid = fit_table(table, {"weight": 0.5})
    found = evaluate.other_sizes(table, grid, slow=True)
    quick = evaluate.other_sizes(table, grid)
    assert {**quick, "parquet_brotli11": found["parquet_brotli11"]} == found
    grids = {column.name: column for column in grid.columns}
    assert found == {**metrics.general_sizes(table), **measure_rivals(table, grids).model_dump()}
    assert found["pcodec"] < measure_rivals(table).pcodec  # type: ignore[operator]


def test_pcodec_of_what_it_does_not_code_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    few = pa.table({"v": pa.array([b"a", b"\xff", None] * 9, pa.binary()), "n": range(27)})
    assert measure_rivals(few, slow=False).pcodec == measure_rivals(few).pcodec
    monkeypatch.setattr(summary, "QUICK_BYTES", 10)
    assert measure_rivals(few.select(["n"]), slow=False).pcodec is not None
    assert measure_rivals(few, slow=False).pcodec is None


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_views_are_measured_as_what_they_show(kind: pa.DataType) -> None:
    table = pa.table({"v": pa.array(["a", "b", None, "a"], kind)})
    plain = pa.large_string() if kind == pa.string_view() else pa.large_binary()
    assert measure_rivals(table).pcodec == measure_rivals(table.cast(pa.schema({"v": plain}))).pcodec


def test_bits_on_disk_are_those_of_the_archive(found: Evaluation, table: pa.Table, written: Path) -> None:
    on_disk = found.numbers["written"]
    with archive.open(written) as opened:
        report = opened.report()
    assert on_disk["columns"] == {
        column.name: pytest.approx(8 * column.bytes / len(table)) for column in report.per_column
    }
    assert on_disk["code"] == 8 * report.bytes.codes / len(table) > 0
    assert on_disk["total"] == pytest.approx(on_disk["code"] + sum(on_disk["columns"].values()))


def test_codes_only_quality_covers_what_codes_tell_of(
    found: Evaluation, trained: TrainedModel, table: pa.Table, split: np.ndarray
) -> None:
    alone = found.numbers["codes_only"]
    assert list(alone["columns"]) == ["size", "weight", "color", "large", "always"]
    assert 0.5 < alone["score"] < 1
    held = table.filter(pa.array(split == 2))
    sparse = codes.encode_rows(trained, held)
    back = codes.rows_from_codes(trained, sparse).select(list(alone["columns"]))
    assert alone["columns"] == metrics.table_quality(held, back)
    assert alone["score"] == pytest.approx(metrics.code_score(alone["columns"]), rel=1e-12)
    assert found.numbers["sparsity"] == {"latents": 6, **metrics.sparsity(sparse)}
    assert 0 < found.numbers["sparsity"]["mean_nonzero"] < 6


def test_stochastic_posteriors_have_bounds(gaussian: TrainedModel, table: pa.Table, place: Path) -> None:
    numbers = evaluate.evaluate(gaussian, table.slice(0, 300), place / "gaussian").numbers
    likelihood = numbers["likelihood"]
    assert numbers["rows"] == {"all": 300, "evaluated": 300, "held_out": 0}
    assert 0 < likelihood["iwae"] < likelihood["elbo"]
    assert not np.isnan(likelihood["hard"])


def test_numbers_flatten_to_metrics(found: Evaluation) -> None:
    flat = evaluate.flat(found.numbers)
    assert flat["bits/code"] == found.numbers["bits"]["code"]
    assert "likelihood/elbo" not in flat
    back: dict[str, Any] = {}
    for name, value in flat.items():
        assert type(value) is float
        *folders, leaf = name.split("/")
        place = back
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    assert back == without_none(found.numbers)


def without_none(numbers: dict[str, Any]) -> dict[str, Any]:
    """Nested numbers without those that are None."""
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in numbers.items()
        if value is not None
    }
