from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from data.dataset import open_dataset
from data.errors import UsageError
from data.kinds import Kind
from flows import cli_pipeline, work
from flows.cli import run
from flows.jobs import Job, RetrainSettings, load_retrain_settings
from flows.settings import GateSettings, SettingsError, load_tracking

SHIPPED = Path(__file__).parents[2] / "mlflow.yml"
PIPELINE = Path(__file__).parents[2] / "examples" / "pipeline.yml"


def test_defaults_without_a_file(tmp_path: Path) -> None:
    tracking = load_tracking()
    assert tracking.config is None
    assert tracking.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking.registry_uri == tracking.tracking_uri
    assert tracking.artifact_location == (tmp_path / "mlartifacts").as_uri()
    assert tracking.state == tmp_path / ".svae"
    assert tracking.model_name("flights") == "flights"


def test_the_shipped_file_states_the_defaults(tmp_path: Path) -> None:
    assert load_tracking(SHIPPED).settings == load_tracking().settings
    assert load_tracking(SHIPPED).settings.gate == GateSettings()


def test_the_commented_pipeline_file_states_every_key_and_its_default() -> None:
    content = yaml.safe_load(PIPELINE.read_text())
    assert content == RetrainSettings().model_dump(mode="json")
    assert load_retrain_settings(PIPELINE, Path()) == RetrainSettings()
    keys = [line for line in PIPELINE.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in keys if "  # " not in line] == []


def test_config_beats_the_variable_beats_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cwd", "variable", "option"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.yml").write_text(f"experiment: {name}\n")
    monkeypatch.chdir(tmp_path / "cwd")
    assert load_tracking().settings.experiment == "cwd"
    monkeypatch.setenv("SVAE_CONFIG", str(tmp_path / "variable" / "mlflow.yml"))
    assert load_tracking().settings.experiment == "variable"
    tracking = load_tracking(tmp_path / "option")  # a folder stands for the file in it
    assert tracking.settings.experiment == "option"
    assert tracking.home == tmp_path / "option"


def test_relative_paths_resolve_against_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "mlflow.yml").write_text(
        "tracking_uri: sqlite:///sub/runs.db?timeout=5\n"
        "registry_uri: sqlite:////abs/models.db\nartifact_location: art\n"
    )
    monkeypatch.chdir(tmp_path / "b")
    tracking = load_tracking("../a/mlflow.yml")
    assert tracking.tracking_uri == f"sqlite:///{tmp_path}/a/sub/runs.db?timeout=5"
    assert tracking.registry_uri == "sqlite:////abs/models.db"
    assert tracking.artifact_location == (tmp_path / "a" / "art").as_uri()


def test_environment_variables_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.yml").write_text("tracking_uri: http://file\nexperiment: file\ngate: {margin: 0.1}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///env.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "env")
    monkeypatch.setenv("SVAE_GATE__MARGIN", "0.25")
    monkeypatch.setenv("SVAE_MODEL", "named")
    tracking = load_tracking()
    assert tracking.tracking_uri == f"sqlite:///{tmp_path}/env.db"
    assert tracking.settings.experiment == "env"
    assert tracking.settings.gate.margin == 0.25
    assert tracking.model_name("flights") == "named"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("trackin_uri: x", "unknown key 'trackin_uri'; did you mean 'tracking_uri'?"),
        ("gate: {margn: 1}", "unknown key 'gate.margn'; did you mean 'margin'?"),
        (
            "gate: {zzz: 1}",
            "unknown key 'gate.zzz'; known: margin, standard_errors, code_score_drop, min_ratio, min_code_score,",
        ),
        ("gate: {margin: -1}", "gate.margin: Input should be greater than or equal to 0 (got -1)"),
        ("tracking_uri: ./mlruns", "tracking_uri: MLflow no longer keeps runs in folders such as './mlruns'"),
        ("tracking_uri: file:///mlruns", "use sqlite:///mlflow.db or a server's URL"),
        ("- a\n- b", "expected keys and values, found list"),
        ("a: [", "line 1: not YAML: expected the node content"),
    ],
)
def test_a_fault_is_one_line_that_names_it(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "mlflow.yml").write_text(content)
    with pytest.raises(SettingsError) as caught:
        load_tracking()
    assert str(tmp_path / "mlflow.yml") in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SVAE_GATE__MARGN", "0.1", "SVAE_GATE__MARGN: no setting has this variable; did you mean SVAE_GATE__MARGIN?"),
        ("SVAE_MODELL", "m", "SVAE_MODELL: no setting has this variable; did you mean SVAE_MODEL?"),
        ("SVAE_CONFG", "x", "SVAE_CONFG: no setting has this variable; did you mean SVAE_CONFIG?"),
        ("SVAE_TRAIN__STEPS", "9", "SVAE_TRAIN__STEPS: no setting has this variable; known: SVAE_CONFIG, MLFLOW_"),
        ("SVAE_GATE__MARGIN", "lots", "SVAE_GATE__MARGIN: gate.margin: "),
        ("MLFLOW_TRACKING_URI", "mlruns", "MLFLOW_TRACKING_URI: tracking_uri: "),
    ],
)  # fmt: skip
def test_a_variable_at_fault_is_named(
    variable: str, value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.yml").write_text("model: sales\n")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as caught:
        load_tracking(tmp_path)
    assert str(caught.value).startswith(message)


def test_of_a_file_and_a_variable_the_one_at_fault_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.yml").write_text("gate: {margin: 3}\n")
    monkeypatch.setenv("SVAE_MODEL", "sales")
    monkeypatch.setenv("SVAE_ROWS", "9")  # nobody's
    with pytest.raises(SettingsError, match=r"mlflow.yml: gate.margin: "):
        load_tracking(tmp_path)
    monkeypatch.setenv("SVAE_GATE__MARGIN", "0.25")
    assert load_tracking(tmp_path).settings.gate.margin == 0.25
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///a.db")
    monkeypatch.setenv("SVAE_TRACKING_URI", "mlruns")  # which wins
    with pytest.raises(SettingsError, match=r"^SVAE_TRACKING_URI: tracking_uri: "):
        load_tracking(tmp_path)
    monkeypatch.delenv("SVAE_TRACKING_URI")
    monkeypatch.setenv("SVAE_DEBUG", "1")  # is known elsewhere
    monkeypatch.setenv("SVAE_GATE__MIN_RATIO", "-1")
    with pytest.raises(SettingsError, match=r"^SVAE_GATE__MIN_RATIO: gate.min_ratio: "):
        load_tracking(tmp_path)


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"nowhere\.yml: no such settings file \(--config names it\)"):
        load_tracking("nowhere.yml")
    monkeypatch.setenv("SVAE_CONFIG", "gone.yml")
    with pytest.raises(SettingsError, match="SVAE_CONFIG names it"):
        load_tracking()


def test_a_deployment_does_not_fall_back_on_its_own_folder() -> None:
    with pytest.raises(SettingsError, match="name mlflow.yml by its full path"):
        load_tracking(required=True)


def test_a_server_keeps_its_own_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert load_tracking(SHIPPED).artifact_location is None
    (tmp_path / "mlflow.yml").write_text("artifact_location: s3://bucket/runs\n")
    assert load_tracking().artifact_location == "s3://bucket/runs"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that `svae run` was to run, in a folder with `prices.csv` and `known.yml`."""
    jobs: list[Job] = []

    def stopped(job: Job, tracking: object) -> None:
        jobs.append(job)
        raise UsageError("as far as this test goes")

    (tmp_path / "prices.csv").write_text("article|price\nA1|NA\nB2|1.5\nA1|2.5\n")
    (tmp_path / "known.yml").write_text(
        "columns:\n  - {name: article, kind: text}\n  - {name: price, kind: numeric, null_text: NA, bound: 1%}\n"
        'csv: {delimiter: "|"}\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli_pipeline, "run_flow", stopped)
    return jobs


def test_a_run_knows_the_columns_of_its_schema_file(asked: list[Job], tmp_path: Path) -> None:
    assert run(["run", "--dataset", "prices.csv", "--schema", "known.yml"]) == 2
    (job,) = asked
    assert job.settings == load_retrain_settings("known.yml", tmp_path)  # the same keys in a file of settings
    again = Job.model_validate(job.model_dump(mode="json")).settings
    assert again.known == job.settings.known
    assert again.csv is not None
    assert again.csv.model_dump(exclude_unset=True) == {"delimiter": "|"}  # the rest is found out
    data = open_dataset(work.ingest(job, lambda share: None, lambda *words: None).path)
    assert [column.kind for column in data.schema.columns] == [Kind.text, Kind.numeric]
    assert data.stats["price"].nulls == 1
    _, checked = work.check(
        job, work.ingest(job, lambda share: None, lambda *words: None), lambda *words: None
    )
    assert checked.bounds == {"price": 0.01}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("columns: [{name: a, kind: text}, {name: a, kind: text}]", "column name 'a' occurs twice"),
        ("columns: [{name: a, kind: words}]", "(got 'words')"),
        ("columns: {a: text}", "columns: Input should be a valid"),
        (
            "columns: [{name: a, kind: numeric, bound: wide}]",
            "column 'a': bound 'wide': must be a finite number",
        ),
        ("columns: [{name: a, knd: numeric}]", "unknown key 'columns.0.knd'; did you mean 'kind'?"),
        ("columns: []\ncsv: {delimeter: ';'}", "unknown key 'csv.delimeter'; did you mean 'delimiter'?"),
    ],
)
def test_a_schema_at_fault(
    content: str, message: str, asked: list[Job], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "known.yml").write_text(content)
    for option in ("--schema", "--pipeline"):
        assert run(["run", "--dataset", "prices.csv", option, "known.yml"]) in {1, 2}
        told = capfd.readouterr().err
        assert message in told
        assert "known.yml" in told
    assert asked == []
