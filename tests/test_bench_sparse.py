"""Benchmarks of sparse codes: what a cell is kept by, and what the table says of those that are there or not."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import (
    archive,
    cells,
    datasets,
    families,
    labels,
    learning,
    likelihood,
    pictures,
    pixels,
    readme,
    sources,
    sparse,
    speedup,
    texts,
)  # fmt: skip
from benchmarks.cells import Benchmark, Case
from data.schema import Schema
from vae import train
from vae.settings import TrainSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cells, "FOLDER", tmp_path)
    return tmp_path


def benchmark(measured: list[str], steps: int = 1) -> Benchmark:
    def measure(case: str, seed: int) -> dict[str, Any]:
        measured.append(f"{case}-{seed}")
        return {"nats": 80 + seed}

    return Benchmark(
        title="Images",
        published="90",
        sources=["benchmarks/cells.py"],
        cases={
            name: Case({"steps": steps}, "88", lambda facts: f"{facts['nats']} nats") for name in ("a", "a-b")
        },
        measure=measure,
    )


def test_a_cell_is_measured_once_for_its_settings_and_seed(folder: Path) -> None:
    measured = list[str]()
    for seed in (0, 0, 1):
        cells.measure("x", benchmark(measured), "a", seed)
    assert measured == ["a-0", "a-1"]
    cells.measure("x", benchmark(measured), "a", 0, fresh=True)
    cells.measure("x", benchmark(measured, steps=2), "a", 0)
    assert measured == ["a-0", "a-1", "a-0", "a-0"]
    assert json.loads((folder / "x-a-0.json").read_text())["settings"] == {"steps": 2}


def test_another_source_is_another_cell() -> None:
    one = benchmark([])
    other = one._replace(sources=["benchmarks/cells.py", "benchmarks/show.py"])
    assert cells.key_for(one, "a", 0) != cells.key_for(other, "a", 0)


def test_the_table_has_a_row_for_each_cell_and_for_what_is_not_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_commit", lambda: "abc")
    for seed in (0, 1):
        cells.measure("x", benchmark([]), "a", seed)
    text = cells.table({"x": benchmark([])})
    rows = text.splitlines()[2:5]
    assert rows == [
        "| Images | `a` | 80 nats | 88 | 90 | abc |",
        "|  | `a` | 81 nats | 88 |  | abc |",
        "|  | `a-b` | not measured yet | 88 |  |  |",
    ]
    assert "at commits abc: each row" in text
    cells.measure("x", benchmark([]), "a-b", 0)
    assert cells.table({"x": benchmark([])}).count("nats") == 3


def test_cells_that_the_sources_have_left_behind_are_named(folder: Path) -> None:
    cells.measure("x", benchmark([]), "a", 0)
    assert cells.outdated({"x": benchmark([])}) == "0 of 1 cells are of other sources than these"
    edited = {"x": benchmark([], steps=2)}
    assert cells.outdated(edited) == "1 of 1 cells are of other sources than these: x-a-0"


def test_seeds_of_a_case_that_names_what_spreads_are_told_together() -> None:
    case = cells.Case({}, "88", lambda facts: f"{facts['nll']:.1f} nats", "nll")
    known = [{"nll": nll, "seed": seed} for seed, nll in enumerate((80.0, 81.0, 83.5))]
    assert cells.rows_of(case, known) == [known]
    assert cells.rows_of(case._replace(spread=""), known) == [[cell] for cell in known]
    assert cells.rows_of(case, []) == [[]]
    assert cells.told(case, known) == "81.5 nats (mean of 3 seeds: 80, 81, 83.5)"
    assert cells.told(case, known[:1]) == "80.0 nats"
    assert cells.told(case, []) == "not measured yet"


def test_of_what_learnt_from_less_the_bytes_are_told_beside_those_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    kind = random.integers(0, 4, 6_000)
    table = pa.table({"kind": kind, "noise": (2 * kind + random.integers(0, 2, 6_000)) % 7})
    monkeypatch.setattr(datasets, "variants", lambda name: (table,))
    monkeypatch.setattr(
        datasets, "source", lambda name: types.SimpleNamespace(schema=Schema.from_arrow(table.schema))
    )
    monkeypatch.setattr(learning, "TRAINING", TrainSettings(steps=40, batch_rows=256, threads=1))
    read = list[int]()
    fitted = train.fit

    def watched(make: Any, rows: Any, *more: Any, **settings: Any) -> Any:
        read.append(len(rows.train_rows))
        return fitted(make, rows, *more, **settings)

    monkeypatch.setattr(train, "fit", watched)
    facts = learning.measure("solar, exact, a fifth of the rows", 0)
    assert read[0] == 6_000
    assert 1_100 < read[1] <= 1_200
    assert facts["bytes"] > 0
    assert facts["usual_bytes"] > 0
    assert "than" in learning.LEARNING.cases["solar, exact, a fifth of the rows"].tell(facts)


@pytest.mark.parametrize(
    "module", [families, labels, likelihood, pixels, speedup, texts], ids=lambda module: module.__name__
)
def test_sources_are_all_that_is_imported_but_what_is_left_out_by_name(module: types.ModuleType) -> None:
    file = f"{module.__name__.replace('.', '/')}.py"
    sources_of = {name: set(sources.reached(name)) for name in module.WITHOUT}  # of files that are there
    found = set(sources.reached(file, module.WITHOUT))
    alone = set(module.WITHOUT).union(*sources_of.values())
    assert set(sources.reached(file)) - found <= alone
    assert not found & set(module.WITHOUT)
    assert {"vae/train.py", "vae/loop.py", "vae/averaging.py", "vae/settings.py"} <= found
    benchmarks = [one for one in sparse.BENCHMARKS.values() if file in one.sources]
    assert benchmarks
    assert all(found <= set(one.sources) for one in benchmarks)


def test_imports_are_followed_from_file_to_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "benchmarks/x.py": "from vae import a, missing\nfrom data import d\n",
        "vae/a.py": "def later():\n    import vae.b as b\n    from vae.codec.c import name\n",
        "vae/b.py": "from vae.a import later\n",
        "vae/codec/c.py": "import vae.e\n",
        "vae/e.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "imported", sources.imported.__wrapped__)
    assert sources.reached("benchmarks/x.py") == ("vae/a.py", "vae/b.py", "vae/codec/c.py", "vae/e.py")
    assert sources.reached("benchmarks/x.py", ["vae/codec/c.py"]) == ("vae/a.py", "vae/b.py")


def test_every_benchmark_names_sources_that_are_there() -> None:
    for one in sparse.BENCHMARKS.values():
        for case in one.cases:
            assert len(cells.key_for(one, case, 0)) == 64


def test_accuracy_is_of_rows_that_were_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "TRAIN", 60)
    monkeypatch.setattr(labels, "CHOOSING", 20)
    random = np.random.default_rng(0)
    kind = random.integers(0, 3, 100).astype(np.uint8)
    features = np.eye(3)[kind] + 0.1 * random.normal(size=(100, 3))
    chosen = random.permutation(60)
    assert labels.accuracy(features, kind, chosen)["accuracy"] == 100
    features[60:] = features[60:][::-1].copy() * 0
    assert labels.accuracy(features, kind, chosen)["accuracy"] < 70


def test_both_trainings_are_timed_to_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    kind = random.integers(0, 4, 3_000)
    table = pa.table({"kind": kind, "twice": (2 * kind + random.integers(0, 2, 3_000)) % 7})
    monkeypatch.setattr(datasets, "variants", lambda name: (table,))
    monkeypatch.setattr(speedup, "TRAINING", TrainSettings(steps=120, batch_rows=64, threads=1))
    monkeypatch.setattr(speedup, "NEAR", 1.5)
    monkeypatch.setattr(speedup, "RATES", (0.05, 1e-9))
    facts = speedup.measure("none", 0)
    assert 0 < facts["seconds"] <= facts["all_seconds"]
    assert 0 < facts["final_bits"] < 5
    assert facts["plain"]["0.05"] > 0
    assert facts["plain"]["1e-09"] is None or facts["plain"]["1e-09"] > 0
    told = speedup.SPEEDUP.cases["none"].tell(facts)
    assert "times quicker" in told
    assert facts["curve"][-1][0] == facts["all_seconds"]
    assert facts["plain_curves"]["0.05"][-1][0] == facts["plain"]["0.05"]
    assert facts["plain_curves"]["1e-09"]
    kept = json.loads(json.dumps(facts))
    assert "plain, rate 1e-09" in speedup.drawing({"none": kept})


def test_curves_are_drawn_of_the_cells_that_kept_them() -> None:
    curves = {rate: [[2.0 * k, 200.0], [40.0, 102.5]] for k, rate in enumerate(("0.001", "0.003", "0.01"), 1)}
    facts = {
        "final_bits": 100.0,
        "curve": [[1.0, 500.0], [3.0, 120.0], [30.0, 100.0]],
        "plain_curves": curves,
    }
    drawn = speedup.drawing({"none": facts, "balanced": {"final_bits": 1.0}, "lean": facts})
    texts = [element.text for element in ET.fromstring(drawn).iter() if element.tag.endswith("text")]  # noqa: S314
    assert (
        texts.count("this project") == texts.count("2% over the end") == texts.count("plain, rate 0.01") == 2
    )
    assert {"3", "10", "30"} <= set(texts)
    assert not any("balanced" in text for text in texts if text)
    assert speedup.drawing({"balanced": {"final_bits": 1.0}}) == ""


def test_a_curve_arrives_where_it_is_near_enough_or_never() -> None:
    assert speedup.arrival([(1.0, 9.0), (2.0, 5.0)], 5.0) == 2.0
    assert speedup.arrival([(1.0, 9.0)], 5.0) is None


@pytest.mark.parametrize("name", ["brotli-11", "xz -9e", "WebP", "JPEG XL", "PNG", "JPEG-LS"])
def test_a_coder_of_images_gives_them_back(name: str) -> None:
    images = np.random.default_rng(0).integers(0, 3, (6, 28, 28)).astype(np.uint8)
    coders = pictures.coders_of_bytes()
    if name not in coders:
        pytest.importorskip("imagecodecs")
        coders = pictures.coders_of_pictures()
    found = pictures.bits(coders[name], pictures.mosaic(images, 3))
    assert np.log2(3) < found < 6


def test_a_coder_that_gives_other_values_back_has_no_size() -> None:
    values = np.arange(6, dtype=np.uint8)
    with pytest.raises(ValueError, match="what was read is not what was written"):
        pictures.bits(pictures.Coder(lambda values: values.tobytes(), lambda _, size: np.zeros(size)), values)


def test_pictures_are_told_from_the_least_on() -> None:
    case = pictures.PICTURES["pictures-mnist"].cases["test"]
    facts = {"bits": {"PNG": 1.68, "xz -9e": 1.39}, "images": 10_000}
    said = "xz -9e 1.390, PNG 1.680; pictures are one mosaic, 100 × 100 images"
    assert case.tell(facts) == f"bits a pixel of the 10,000 test images: {said}"


def test_seeds_are_the_benchmarks_own_or_those_that_are_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = list[str]()
    known = {"x": benchmark(measured)._replace(seeds=(0, 1)), "y": benchmark(measured)._replace(alone=True)}
    monkeypatch.setattr(sparse, "BENCHMARKS", known)
    monkeypatch.setattr(sparse, "PAGE", folder / "sparse.md")
    monkeypatch.setattr(readme, "main", lambda: 0)
    sparse.main([])
    assert measured == ["a-0", "a-1", "a-b-0", "a-b-1"]
    sparse.main(["--only", "x", "--cases", "a", "--seeds", "5", "1"])
    assert measured[4:] == ["a-5"]
    sparse.main(["--only", "y"])
    assert measured[5:] == ["a-0", "a-b-0"]


def test_what_is_shown_is_written_beside_the_cells(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sparse, "PAGE", folder / "sparse.md")
    monkeypatch.setattr(readme, "main", lambda: 0)
    assert sparse.main(["--show"]) == 0
    assert (folder / "sparse.md").read_text() == sparse.page()
    assert capsys.readouterr().out.strip() in sparse.page()
