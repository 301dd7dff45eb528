"""The whole pipeline on real rows, few of them, against a real store and a real Prefect API."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data.errors import GateError, ModelError
from data.kinds import Kind
from data.schema import Column
from flows import cache
from flows.jobs import RetrainSettings
from flows.registry import Registry
from flows.reload import verify_reload
from flows.results import Outcome
from flows.settings import load_tracking
from flows.tracking import Store
from vae.settings import Codes, ModelSettings, TrainSettings
from vae.store import load

SMALL = ModelSettings(latents=4, width=8, encoder_width=16, encoder_depth=1)
MADE = {"ingest", "train", "extract", "compress", "evaluate"}

pytestmark = pytest.mark.usefixtures("prefect_api")


def settings(steps: int = 30, seed: int = 0, codes: Codes = Codes.balanced, **more: Any) -> RetrainSettings:
    training = TrainSettings(steps=steps, batch_rows=256, threads=1, seed=seed)
    return RetrainSettings(model=SMALL.model_copy(update={"codes": codes}), train=training, **more)


def retrain(home: Path, source: Path, **more: Any) -> Outcome:
    from flows.retrain import retrain as flow

    return flow(source=str(source), settings=settings(**more), out=str(home / "out"), config=str(home))


def states() -> dict[str, str]:
    """The state in which each task of the latest retraining ended."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.client.schemas.sorting import FlowRunSort

    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    return {task.name.partition("-")[0]: str(task.state and task.state.name) for task in tasks}


def connect(home: Path) -> Registry:
    return Registry(Store(load_tracking(home)))


def aliases(home: Path) -> dict[str, int]:
    return {alias: v.version for v in connect(home).versions("flights") for alias in v.aliases}


def new_home(migrated: Path, folder: Path, config: str = "") -> Path:
    for name in ("mlflow.yml", "mlflow.db"):
        shutil.copy(migrated / name, folder / name)
    with (folder / "mlflow.yml").open("a") as file:
        file.write(config)
    return folder


@pytest.fixture(scope="module")
def home(migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_home(migrated, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def first(prefect_api: None, home: Path, flights: Path) -> Outcome:
    """The first retraining of a project."""
    return retrain(home, flights)


@pytest.fixture
def copied_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources that cache keys are made of, in a copy that may be edited."""
    copies = tuple(tmp_path / "project" / folder.name for folder in cache.SOURCES)
    for folder, copy in zip(cache.SOURCES, copies, strict=True):
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache, "SOURCES", copies)
    return tmp_path / "project"


def run_status(home: Path) -> str:
    """The state of the MLflow run of the only version."""
    registry = connect(home)
    (version,) = registry.versions("flights")
    return registry.store.client.get_run(version.run_id).info.status


def test_everything_is_made(home: Path, first: Outcome) -> None:
    for path in (first.dataset, first.model, first.codes, first.archive, first.figures):
        assert path.exists()
        assert path.is_relative_to(home / "out")
    assert {path.name for path in first.figures.glob("*.png")} >= {"training.png", "bits.png", "codes.png"}
    assert pq.read_table(first.codes).column_names == ["row", "indices", "values"]
    assert first.version.promoted
    assert first.version.is_new
    assert first.version.reasons == ("no champion yet, and every floor holds",)
    assert aliases(home) == {"champion": 1}


def test_the_run_holds_it_all(home: Path, first: Outcome) -> None:
    store = Store(load_tracking(home))
    run = store.client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "30"
    assert run.data.params["model.latents"] == "4"
    # those that the table asks for, where the settings name none
    assert run.data.params["train.decoder_lr"] == "null"
    assert run.data.params["learning_rates.decoder"] == "0.035"
    assert run.data.params["learning_rates.encoder"] == "0.002"
    digest = json.loads((first.dataset / "manifest.json").read_text())["digest"]
    assert run.data.tags["dataset.sha256"] == digest
    assert len(run.data.tags["prefect.flow_run_id"]) == 36
    for name in (
        "bits/total",
        "size/archive",
        "likelihood/hard",
        "codes_only/score",
        "sparsity/mean_nonzero",
        "code/drawn_nonzero",
    ):
        assert name in run.data.metrics
    assert store.client.get_metric_history(first.run_id, "train/loss")
    assert store.client.get_metric_history(first.run_id, "validation/bits")
    assert store.client.get_metric_history(first.run_id, "system/cpu_utilization_percentage")
    files = {file.path for file in store.client.list_artifacts(first.run_id)}
    assert {
        "schema.json",
        "manifest.json",
        "packages.json",
        "evaluation.json",
        "archive.json",
        "figures",
    } <= files


def test_the_version_says_where_it_comes_from(home: Path, first: Outcome) -> None:
    version = connect(home).find("flights@champion")
    assert version.run_id == first.run_id
    digest = json.loads((first.model / "model.json").read_text())["digest"]
    assert version.digest == digest
    assert version.tags["svae.dataset"] == json.loads((first.dataset / "manifest.json").read_text())["digest"]
    assert version.tags["svae.verdict"] == "promoted: no champion yet, and every floor holds"
    assert json.loads(version.tags["svae.score"])["bits_per_row"] > 0


def test_nothing_is_pickled(home: Path, first: Outcome) -> None:
    folder = connect(home).download("models:/flights@champion")
    endings = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert not endings & {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".ckpt"}
    assert ".safetensors" in endings
    assert "cloudpickle" not in (folder / "requirements.txt").read_text()


def test_a_second_run_makes_nothing(home: Path, first: Outcome, flights: Path) -> None:
    again = retrain(home, flights)
    assert {step for step, state in states().items() if state == "Cached"} == MADE
    assert again == first.model_copy(update={"version": again.version})
    assert (again.version.version, again.version.promoted, again.version.is_new) == (1, True, False)
    registry = connect(home)
    assert [version.version for version in registry.versions("flights")] == [1]
    experiment = registry.store.experiment_id()
    assert len(registry.client.search_runs([experiment])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("output", ["codes.parquet", "flights.svae", "report/evaluation.json"])
def test_an_output_that_is_gone_is_made_again(home: Path, first: Outcome, flights: Path, output: str) -> None:
    path = home / "out" / output
    before = path.read_bytes()
    path.unlink()
    retrain(home, flights)
    assert states()["train"] == "Cached"
    after = path.read_bytes()
    if output != "flights.svae":  # an archive's report holds the seconds that it took
        assert after == before
    assert len(connect(home).versions("flights")) == 1
    assert run_status(home) == "FINISHED"


def test_a_damaged_model_is_trained_again(home: Path, first: Outcome, flights: Path) -> None:
    path = home / "out" / "model" / "model.json"
    before = path.read_bytes()
    path.write_bytes(before[:-10])
    retrain(home, flights)
    assert states()["train"] == "Completed"
    assert path.read_bytes() == before
    assert len(connect(home).versions("flights")) == 1


def test_an_edit_of_the_readme_changes_nothing(
    home: Path, first: Outcome, flights: Path, copied_sources: Path
) -> None:
    (copied_sources / "README.md").write_text("more\n")
    retrain(home, flights)
    assert states()["train"] == "Cached"


def test_an_edit_of_the_training_code_trains_again(
    home: Path, first: Outcome, flights: Path, copied_sources: Path
) -> None:
    with (copied_sources / "vae" / "train.py").open("a") as file:
        file.write("# a line\n")
    made = (home / "out" / "model" / "model.json").stat().st_mtime_ns
    retrain(home, flights)
    assert states()["train"] == "Completed"
    assert (home / "out" / "model" / "model.json").stat().st_mtime_ns > made
    # The comment changed no weight: it is the model that the registry knows.
    assert len(connect(home).versions("flights")) == 1
    assert run_status(home) == "FINISHED"


@pytest.mark.slow
def test_an_edit_of_the_code_that_types_a_source_ingests_again(
    home: Path, first: Outcome, flights: Path, copied_sources: Path
) -> None:
    with (copied_sources / "data" / "csvtext.py").open("a") as file:
        file.write("# a line\n")
    made = (home / "out" / "dataset" / "manifest.json").stat().st_mtime_ns
    retrain(home, flights)
    assert states()["ingest"] == "Completed"
    assert (home / "out" / "dataset" / "manifest.json").stat().st_mtime_ns > made


def test_data_that_fails_its_gate_stops_before_training(
    home: Path, first: Outcome, flights: Path, tmp_path: Path
) -> None:
    from flows.retrain import retrain as flow

    lines = flights.read_text().splitlines()
    place = lines[0].replace('"', "").split(",").index("air_time")
    worse = [
        ",".join("NA" if i == place else cell for i, cell in enumerate(line.split(","))) for line in lines[1:]
    ]
    (tmp_path / "flights.csv").write_text("\n".join([lines[0], *worse]) + "\n")
    with pytest.raises(GateError, match="air_time: null share is 100.00%"):
        flow(
            source=str(tmp_path / "flights.csv"),
            settings=settings(),
            out=str(tmp_path / "out"),
            config=str(home),
        )
    assert states()["validate"] == "Failed"
    assert "train" not in states()
    assert not (tmp_path / "out" / "model").exists()
    assert aliases(home) == {"champion": 1}


@pytest.mark.slow
def test_a_failure_closes_its_run(
    migrated: Path, tmp_path: Path, flights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **named: object) -> None:
        raise ModelError("training diverged")

    monkeypatch.setattr("vae.pipeline.fit", broken)
    home = new_home(migrated, tmp_path)
    with pytest.raises(ModelError, match="training diverged"):
        retrain(home, flights)
    store = Store(load_tracking(home))
    runs = store.client.search_runs([store.experiment_id()])
    assert [run.info.status for run in runs] == ["FAILED"]
    # Mended and run again, the training goes on in its run.
    monkeypatch.undo()
    monkeypatch.delenv("SVAE_CONFIG", raising=False)
    outcome = retrain(home, flights)
    assert outcome.run_id == runs[0].info.run_id
    assert store.client.get_run(outcome.run_id).info.status == "FINISHED"


@pytest.fixture
def story(migrated: Path, tmp_path: Path) -> Path:
    return new_home(migrated, tmp_path, "gate: {margin: 0.001, code_score_drop: 1.0}\n")


@pytest.mark.slow
def test_the_story_of_a_champion(story: Path, flights: Path, tmp_path: Path) -> None:
    """Trained, beaten by none that is worse, by one that is better, rolled back, and never back by itself."""
    # A first model becomes the champion.
    assert retrain(story, flights, steps=40).version.promoted
    # One that has hardly been trained is seen to lose.
    worse = retrain(story, flights, steps=2).version
    assert (worse.version, worse.promoted) == (2, False)
    assert "below the margin" in worse.reasons[0]
    assert connect(story).find("flights/2").tags["svae.verdict"].startswith("not promoted: ")
    assert aliases(story) == {"champion": 1}
    # One that is better takes its place.
    better = retrain(story, flights, steps=200).version
    assert (better.version, better.promoted) == (3, True)
    assert aliases(story) == {"champion": 3, "previous": 1}
    # Rolled back, it stays so, however often the same is run.
    registry = connect(story)
    registry.rollback("flights", "too good to be true", verify=lambda v: verify_reload(registry, v))
    again = retrain(story, flights, steps=200).version
    assert (again.version, again.promoted, again.is_new) == (3, False, False)
    (story / "out" / cache.RECEIPTS / "register.json").unlink()
    judged = retrain(story, flights, steps=200).version
    assert (judged.version, judged.promoted) == (3, False)
    assert judged.reasons[-1] == "it was rolled back; only `svae models promote` brings it back"
    assert aliases(story) == {"champion": 1, "previous": 3}
    # By hand it comes back.
    registry.promote(registry.find("flights/3"), "by hand", verify=lambda v: verify_reload(registry, v))
    assert aliases(story) == {"champion": 3, "previous": 1}
    assert not registry.find("flights/3").rolled_back


@pytest.mark.slow
def test_one_that_is_broken_on_purpose_loses(migrated: Path, flights: Path, tmp_path: Path) -> None:
    """By the gate's default settings, on bytes and on codes."""
    home = new_home(migrated, tmp_path)
    assert retrain(home, flights, steps=60, codes=Codes.rich).version.promoted
    broken = retrain(home, flights, steps=2, codes=Codes.rich).version
    assert (broken.version, broken.promoted) == (2, False)
    size, code = broken.reasons
    larger = r"[\d,]+ bytes against the champion's .* larger, standard error \d+\.\d\d%\)"
    assert re.fullmatch(rf"{larger}: below the margin of 0\.50%", size)
    assert re.fullmatch(r"code score 0\.\d+ against 0\.\d+: drops by more than 0\.01", code)
    assert aliases(home) == {"champion": 1}


@pytest.mark.slow
def test_a_changed_schema_waits_for_a_hand(story: Path, flights: Path, tmp_path: Path) -> None:
    assert retrain(story, flights).version.promoted
    lines = [line.rsplit(",", 1)[0] for line in flights.read_text().splitlines()]
    changed = tmp_path / "changed" / "flights.csv"
    changed.parent.mkdir()
    changed.write_text("\n".join(lines) + "\n")
    with pytest.raises(GateError, match="time_hour: type is missing"):
        retrain(story, changed)
    version = retrain(story, changed, allow_schema_change=True).version
    assert (version.version, version.promoted) == (2, False)
    assert (
        "the champion (version 1) cannot be compared (the model is for another schema" in version.reasons[0]
    )
    registry = connect(story)
    registry.promote(registry.find("flights/2"), "agreed", verify=lambda v: verify_reload(registry, v))
    assert aliases(story) == {"champion": 2, "previous": 1}


@pytest.mark.slow
def test_a_kind_that_is_settled_by_hand_reaches_the_model(story: Path, flights: Path) -> None:
    """The content is the same to the bit, so nothing but the schema says that there is something to do."""
    assert retrain(story, flights).version.promoted
    as_text = (Column(name="carrier", kind=Kind.text),)
    with pytest.raises(GateError, match="carrier"):
        retrain(story, flights, columns=as_text)
    changed = retrain(story, flights, columns=as_text, allow_schema_change=True)
    ended = states()
    assert ended["ingest"] == "Cached"  # by the run that its gate stopped
    assert {ended[name] for name in MADE - {"ingest"}} == {"Completed"}
    assert load(changed.model).schema.column("carrier").kind is Kind.text
    registry = connect(story)
    version = registry.find(f"flights/{changed.version.version}")
    registry.promote(version, "agreed", verify=lambda v: verify_reload(registry, v))
    assert retrain(story, flights, columns=as_text).version.version == version.version


@pytest.mark.slow
def test_a_percentage_keeps_the_champions_width(story: Path, flights: Path, tmp_path: Path) -> None:
    """Else a range that grew by a minute would forbid every comparison."""
    column = Column(name="air_time", kind=Kind.integer, bound="5%")
    assert retrain(story, flights, columns=(column,)).version.promoted
    lines = flights.read_text().splitlines()
    cells = lines[1].split(",")
    cells[lines[0].replace('"', "").split(",").index("air_time")] = "700"
    grown = tmp_path / "grown" / "flights.csv"
    grown.parent.mkdir()
    grown.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    version = retrain(story, grown, bounds=("air_time=5.0%",)).version
    assert "against the champion's" in version.reasons[0]
    wider = column.model_copy(update={"bound": "6%"})
    for asked in ({"bounds": ("air_time=6%",)}, {"columns": (wider,)}):
        other = retrain(story, grown, **asked).version
        assert states()["ingest"] == ("Completed" if "columns" in asked else "Cached")
        assert not other.promoted
        assert "serves other bounds" in other.reasons[0]


def test_a_version_that_was_tampered_with_is_not_promoted(home: Path, first: Outcome) -> None:
    registry = connect(home)
    version = registry.find("flights@champion")
    verify_reload(registry, version)
    stored = Path(registry._storage_of(version).removeprefix("file://"))
    check = next(stored.rglob("check-codes.parquet"))
    codes = check.read_bytes()
    table = pq.read_table(check)
    try:
        pq.write_table(table.slice(1), check)
        with pytest.raises(ModelError, match="gives other codes than when it was made; it was not promoted"):
            verify_reload(registry, version)
    finally:
        check.write_bytes(codes)
    model = next(stored.rglob("model.json"))
    content = model.read_bytes()
    try:
        model.write_bytes(content.replace(b"0", b"1", 1))
        with pytest.raises(ModelError, match=r"models:/flights/1 does not load from the registry"):
            verify_reload(registry, version)
    finally:
        model.write_bytes(content)
    assert aliases(home) == {"champion": 1}
