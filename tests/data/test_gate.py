"""The gate before training tells each difference, with value and limit."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pydantic import ValidationError

from data.errors import GateError
from data.gate import DataGate, Finding, check, require
from data.ingest import ingest
from data.manifest import Manifest
from data.sources import TableSource

COLUMNS = {
    "n": [1, 2, 3, None],
    "x": [0.0, 1.0, 0.5, float("nan")],
    "w": ["a", "b", "a", "b"] * 1,
    "t": pa.array([0, 1, 2, 3], pa.timestamp("s")),
}


def manifest_of(folder, changes=None, repeat=3) -> Manifest:
    columns = {**COLUMNS, **(changes or {})}
    table = pa.table({name: values for name, values in columns.items() if values is not None})
    table = pa.concat_tables([table] * repeat)
    return ingest(TableSource(table), folder).manifest


@pytest.fixture
def known(tmp_path):
    return manifest_of(tmp_path / "known")


def failed(findings: list[Finding]) -> list[tuple[str, str, str, str]]:
    return [finding[:4] for finding in findings if not finding.passed]


def test_the_same_data_passes_every_check(tmp_path, known):
    findings = check(manifest_of(tmp_path / "new"), known, DataGate())

    assert failed(findings) == []
    require(findings)
    assert {(finding.column, finding.check) for finding in findings} == {
        ("", "rows"),
        *((name, "type") for name in COLUMNS),
        *((name, "null share") for name in COLUMNS),
        ("n", "range"),
        ("x", "range"),
        ("w", "new categories"),
    }


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"x": None}, ("x", "type", "missing", "numeric (double)")),
        ({"x": ["1", "2", "3", "3"]}, ("x", "type", "categorical (string)", "numeric (double)")),
        ({"new": [1, 2, 3, 4]}, ("new", "type", "added", "no new column (allow_added_columns)")),
        (
            {"n": [1, None, 3, None]},
            ("n", "null share", "50.00%", "at most 30.00% (25.00% before, max_null_rise 0.05)"),
        ),
        ({"n": [1, 2, 5, None]}, ("n", "range", "1 ... 5", "0 ... 4 (range_slack 0.5)")),
        ({"x": [-0.6, 1.0, 0.5, 0.0]}, ("x", "range", "-0.6 ... 1", "-0.5 ... 1.5 (range_slack 0.5)")),
        (
            {"w": ["a", "b", "c", "a"]},
            ("w", "new categories", "33.3% ('c')", "at most 20.0% (max_new_categories)"),
        ),
    ],
)
def test_a_difference_is_told(tmp_path, known, changes, finding):
    findings = check(manifest_of(tmp_path / "new", changes), known, DataGate())

    assert failed(findings) == [finding]
    with pytest.raises(GateError) as error:
        require(findings)
    column, what, value, limit = finding
    way = "mend the data, or widen the gate's settings if this is right"
    assert (
        str(error.value)
        == f"the data did not pass its gate: {column}: {what} is {value}, allowed is {limit}; {way}"
    )


def test_the_limits_are_settings(tmp_path, known):
    new = manifest_of(
        tmp_path / "new", {"n": [1, None, 9, None], "w": ["a", "b", "c", "a"], "new": [1, 2, 3, 4]}
    )
    wide = DataGate(max_null_rise=0.5, range_slack=4, max_new_categories=0.5, allow_added_columns=True)

    assert failed(check(new, known, wide)) == []
    assert failed(check(new, known, DataGate(min_rows=13)))[0] == ("", "rows", "12", "at least 13 (min_rows)")


def test_time_goes_on(tmp_path, known):
    later = manifest_of(tmp_path / "new", {"t": pa.array([10**9] * 4, pa.timestamp("s"))})

    assert failed(check(later, known, DataGate())) == []


def test_a_schema_alone_is_compared_by_type(tmp_path, known):
    new = manifest_of(tmp_path / "new", {"n": [100, None, None, None]})

    findings = check(new, known.schema, DataGate())

    assert failed(findings) == []
    assert {finding.check for finding in findings} == {"rows", "type"}


def test_without_a_model_only_the_rows_count(known):
    assert [finding.check for finding in check(known, None, DataGate())] == ["rows"]


def test_a_constant_column_may_move_by_its_own_size(tmp_path):
    known = manifest_of(tmp_path / "known", {"n": [2013] * 4})

    assert failed(check(manifest_of(tmp_path / "next", {"n": [2014] * 4}), known, DataGate())) == []
    assert failed(check(manifest_of(tmp_path / "far", {"n": [9999] * 4}), known, DataGate())) != []


@pytest.mark.parametrize(
    "wrong", [{"min_rows": 0}, {"max_null_rise": 2}, {"range_slack": -1}, {"colour": "red"}]
)
def test_settings_check_themselves(wrong):
    with pytest.raises(ValidationError):
        DataGate.model_validate(wrong)
