"""What a person sees of a run: its evaluation on the terminal and in JSON, tables and progress bars in Prefect."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data.errors import SourceError
from flows import cli_pipeline
from flows.cli import run
from flows.cli_evaluation import NUMBERS_NAME, column_rows, summary
from flows.jobs import ReportSettings, RetrainSettings
from flows.results import Aim, Outcome
from flows.settings import load_tracking
from flows.tracking import Store
from vae import curve, evaluate
from vae.settings import ModelSettings, TrainSettings

SETTINGS = RetrainSettings(
    model=ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1, target="bits=4"),
    train=TrainSettings(steps=20, batch_rows=256, threads=1),
    bounds=("air_time=1%",),
)

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(scope="module")
def outcome(
    prefect_api: None, migrated: Path, flights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    """A retraining of few steps."""
    import shutil

    from flows.retrain import retrain

    home = tmp_path_factory.mktemp("report")
    for name in ("mlflow.yml", "mlflow.db"):
        shutil.copy(migrated / name, home / name)
    return retrain(source=str(flights), settings=SETTINGS, out=str(home / "out"), config=str(home))


@pytest.fixture
def call(outcome: Outcome, flights: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A call of `svae run` that ends in this outcome at once."""
    monkeypatch.setattr(cli_pipeline, "run_flow", lambda *_: outcome)
    return ["run", "--dataset", str(flights), "--config", str(home)]


@pytest.fixture
def numbers(outcome: Outcome) -> dict[str, Any]:
    return json.loads((outcome.figures / NUMBERS_NAME).read_text())


def test_the_name_is_that_of_the_evaluation() -> None:
    assert NUMBERS_NAME == evaluate.NUMBERS_NAME


def test_json_holds_the_evaluation(
    call: list[str], numbers: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert run([*call, "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["evaluation"] == numbers
    assert told["ratio"] == pytest.approx(told["evaluation"]["size"]["ratio_to_source"])


def test_the_evaluation_is_printed(
    call: list[str], numbers: dict[str, Any], outcome: Outcome, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert run(call) == 0
    out, err = capfd.readouterr()
    assert "\x1b" not in out + err
    cells = [line.split() for line in out.splitlines()]
    size = numbers["size"]
    tools = {
        "Parquet, snappy": "parquet_snappy",
        "Parquet, zstd 19": "parquet_zstd19",
        "pcodec, level 12": "pcodec",
    }
    for words, name in tools.items():
        ratios = [f"{size[f'ratio_to_{name}']:.3f}", f"{size[f'ratio_to_{name}_without_model']:.3f}"]
        assert [*words.split(), f"{size[name]:,}", *ratios] in cells
    for words, name in (("source", "source"), ("CSV, words quoted", "csv")):
        assert [*words.split(), f"{size[name]:,}"] in [row[: len(words.split()) + 1] for row in cells]
    assert ["archive", f"{outcome.archive_bytes:,}", "-", "-"] in cells
    assert ["its", "model", f"{size['model']:,}", "-", "-"] in cells
    sparsity = numbers["sparsity"]
    assert (
        f"score {numbers['codes_only']['score']:.3f}, {sparsity['mean_nonzero']:.1f} latents on a row;"
        f" {sparsity['active_units']:.0f} of {sparsity['latents']} active (variance above 0.01),"
        f" {sparsity['dead_latents']:.0f} constant\n"
    ) in out
    columns = numbers["written"]["columns"]
    told = [row for row in cells if len(row) == 4 and row[0] in columns]
    assert [row[0] for row in told] == sorted(columns, key=lambda name: -columns[name])
    found = {row[0]: row[1:] for row in told}
    assert found["air_time"] == [
        f"{columns['air_time']:.3f}",
        f"{numbers['codes_only']['columns']['air_time']['score']:.3f}",
        f"{numbers['restored']['columns']['air_time']['max_error']:g}",
    ]
    assert float(found["air_time"][2]) > 0
    assert found["carrier"][2] == found["dep_time"][2] == "0"


def test_a_run_leaves_its_page(outcome: Outcome) -> None:
    text = (outcome.figures.parent / "report.html").read_text()
    for title in (
        "What is guaranteed",
        "What the latents say",
        "Some rows",
        "Pictures",
        "What the data gate said",
        "What the registry’s gate said",
    ):
        assert f">{title}</h2>" in text
    assert outcome.target is not None
    assert f"asked for bits=4, and came to {outcome.target.found:.3g} on the rows that validate" in text
    assert ">pcodec, level 12</th>" in text
    assert "on the same grid as the archive’s" in text
    assert re.search(
        r"which take longer, are with: svae run --dataset \S+flights.csv --rivals \(and whatever", text
    )
    assert "Not measured yet." in text
    assert re.search(
        r"svae run --dataset \S+flights.csv --curve \(and whatever options this run had\)</p>", text
    )


def test_a_code_that_collapsed_is_named(
    call: list[str],
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    record = json.loads((outcome.model / "model.json").read_text())["record"]
    assert outcome.collapsed == record["code"]["collapsed"]
    for collapsed in (False, True):
        found = outcome.model_copy(update={"collapsed": collapsed})
        monkeypatch.setattr(cli_pipeline, "run_flow", lambda *_, found=found: found)
        capfd.readouterr()
        assert run(call) == 0
        told = " ".join(capfd.readouterr().out.split())
        assert (
            "warning the code has collapsed (posterior collapse): it is the same for" in told
        ) is collapsed
        assert run([*call, "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["collapsed"] is collapsed


def test_a_code_that_missed_its_target_is_named(
    call: list[str],
    outcome: Outcome,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    record = json.loads((outcome.model / "model.json").read_text())["record"]
    assert outcome.target is not None
    assert outcome.target.model_dump() == record["target"]
    assert outcome.target.asked == "bits=4"
    missed = "bits=4 was asked of the code, and it came to 5 (25% above)"
    for found, words in ((4.1, "bits=4, found 4.1"), (5.0, missed)):
        told = outcome.model_copy(update={"target": Aim(asked="bits=4", found=found)})
        monkeypatch.setattr(cli_pipeline, "run_flow", lambda *_, told=told: told)
        capfd.readouterr()
        assert run(call) == 0
        assert f"target {words}" in " ".join(capfd.readouterr().out.split())
        assert run([*call, "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["target"] == {"asked": "bits=4", "found": found}


def test_parts_that_were_not_measured_are_left_out() -> None:
    numbers: dict[str, Any] = {
        "rows": {"all": 9, "evaluated": 9, "held_out": 0},
        "bits": {"code": 1.0, "columns": {"a": 2.0, "b": 3.5}, "total": 6.5, "codes_only": 0.0},
        "likelihood": {"hard": 6.5, "elbo": 6.25, "iwae": 6.0},
    }
    assert summary(numbers) == {
        "evaluated on": "9 rows, not held out",
        "bits by model": "6.50 (1.00 the code, 5.50 columns) a row",
        "likelihood": "ELBO 6.25, IWAE 6.00 bits a row",
    }
    numbers |= {"size": {"model": 0}, "written": {"total": 5.0, "code": 0.0}}
    assert summary(numbers)["bits written"] == (
        "5.00 a row (0.00 the code), all rows; without the model, which does not pay here"
    )
    del numbers["written"]
    assert column_rows(numbers) == [["b", 3.5, None, None], ["a", 2.0, None, None]]


def test_a_report_that_is_gone_is_told(
    call: list[str], outcome: Outcome, capfd: pytest.CaptureFixture[str]
) -> None:
    path = outcome.figures / NUMBERS_NAME
    content = path.read_bytes()
    path.unlink()
    try:
        assert run(call) == 1
    finally:
        path.write_bytes(content)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("svae: ")]
    assert line.startswith(f"svae: {path}: cannot be read (")


def test_long_steps_have_progress_and_codes_have_a_table(outcome: Outcome, numbers: dict[str, Any]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
    from prefect.client.schemas.sorting import ArtifactSort

    with get_client(sync_client=True) as client:
        # the server knows other runs too, some of which failed half-way
        run = client.read_artifacts(limit=1, sort=ArtifactSort.CREATED_DESC)[0].flow_run_id
        assert run is not None
        of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        found = client.read_artifacts(artifact_filter=of_run, limit=200)
    artifacts: dict[str, Any] = {artifact.key or "": artifact for artifact in found}
    for key in ("ingest", "training", "extraction", "compression", "measuring"):
        assert (artifacts[key].type, float(artifacts[key].data)) == ("progress", 100), key
    assert {"columns", "data-gate", "codes", "archive", "evaluation", "registry-gate"} <= artifacts.keys()
    rows = {row["name"]: row["value"] for row in json.loads(artifacts["codes"].data)}
    assert rows["latents"] == 4
    assert 0 < rows["mean_nonzero"] <= 4
    assert 0 < rows["bits_per_row"] < 8 * 4


def test_a_run_may_draw_its_curve_and_keeps_its_points(
    outcome: Outcome, flights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder of a run that is done: everything else is found made."""
    from flows.retrain import retrain

    monkeypatch.setattr(curve, "SHARES", (0.0, 0.1))
    measured: list[float] = []
    measure = curve.measure

    def counted(*given: Any, shares: list[float], **told: Any) -> list[curve.Point]:
        measured.extend(shares)
        if len(measured) == 2:
            raise SourceError("killed")
        return measure(*given, shares=shares, **told)

    monkeypatch.setattr(curve, "measure", counted)
    settings = SETTINGS.model_copy(update={"report": ReportSettings(curve=True)})
    out = outcome.figures.parent

    def again() -> Outcome:
        return retrain(source=str(flights), settings=settings, out=str(out), config=str(out.parent))

    page = out / "report.html"
    page.unlink()
    with pytest.raises(SourceError, match="killed"):
        again()
    assert "Not measured yet." in page.read_text()  # what is registered has its page without the curve
    found = again()
    assert measured == [0.0, 0.1, 0.1]
    assert found == outcome.model_copy(update={"curve": out / "curve.json", "version": found.version})
    rows = json.loads((out / "curve.json").read_text())
    assert [(row["bound"], row["given"]) for row in rows[:2]] == [(0.0, False), (0.1, False)]
    assert rows[0]["archive"] > rows[1]["archive"]
    assert rows[2]["given"]
    text = page.read_text()
    assert "Not measured yet." not in text
    assert "Bits a row over the bound" in text
    assert "There was no champion whose data" in text  # when it was trained, whoever is champion now
    store = Store(load_tracking(out.parent))
    run_of_model = store.client.get_run(outcome.run_id)
    assert run_of_model.data.metrics["curve/pcodec/0.1"] == rows[1]["pcodec"]
    assert run_of_model.info.status == "FINISHED"
    assert {"curve.json", "report.html"} <= {
        entry.path for entry in store.client.list_artifacts(outcome.run_id)
    }
    assert measured == [0.0, 0.1, 0.1]
    assert again() == found
    assert len(measured) == 3
    page.unlink()
    assert retrain(source=str(flights), settings=SETTINGS, out=str(out), config=str(out.parent)) == found
    assert "Bits a row over the bound" in page.read_text()  # nobody has to ask again
    assert len(measured) == 3


def test_slow_rivals_are_measured_once_and_have_no_say(outcome: Outcome, flights: Path) -> None:
    from flows.retrain import retrain

    out = outcome.figures.parent
    verdict = out / ".receipts" / "register.json"
    numbers, judged = outcome.figures / NUMBERS_NAME, verdict.read_bytes()

    def again(settings: RetrainSettings) -> tuple[Outcome, int]:
        found = retrain(source=str(flights), settings=settings, out=str(out), config=str(out.parent))
        return found, numbers.stat().st_mtime_ns

    assert "parquet_brotli11" not in json.loads(numbers.read_text())["size"]
    found, made = again(SETTINGS.model_copy(update={"report": ReportSettings(rivals=True)}))
    assert json.loads(numbers.read_text())["size"]["parquet_brotli11"] > 0
    assert (found.version.version, found.version.is_new) == (outcome.version.version, False)
    assert verdict.read_bytes() == judged
    assert again(SETTINGS) == (found, made)  # what is there is kept
