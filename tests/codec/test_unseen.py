"""A model meets data it never saw: every value comes back within its bound, or the table is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import SchemaError
from data.gridfit import fit_table
from vae.codec import archive, structure, writer
from vae.codec.compare import same
from vae.codec.integer import IntegerModel
from vae.planning import make_plan

SEEN = pa.table({
    "name": [f"n{k % 7}" for k in range(120)],
    "count": [k * k % 90 for k in range(120)],
    "price": [(37 * k % 401) / 10 for k in range(120)],
    "at": pa.array([1_600_000_000 + 60 * (k * k % 700) for k in range(120)], pa.timestamp("s", "UTC")),
    "flag": pa.array([None if k % 11 == 0 else k % 3 == 0 for k in range(120)]),
})  # fmt: skip
STORED = {
    "name": pa.string(),
    "count": pa.int64(),
    "price": pa.float64(),
    "at": pa.int64(),
    "flag": pa.bool_(),
}
UNSEEN: dict[str, st.SearchStrategy[Any]] = {
    "name": st.text(max_size=5) | st.sampled_from(["n1", "n2"]),
    "count": st.integers(-(2**63), 2**63 - 1) | st.integers(0, 90_000),
    "price": st.floats() | st.integers(-401_000, 401_000).map(lambda k: k / 10),
    "at": st.integers(-(2**62), 2**62) | st.integers(1_600_000_000, 1_600_042_000),
    "flag": st.booleans(),
}


@pytest.fixture(params=[None, {"count": 3.0, "price": 0.25, "at": 90.0}], ids=["exact", "bounded"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of `write`: a model of all columns of SEEN, of random weights, kept whether it pays or not."""
    monkeypatch.setattr(writer, "CLOSE_CALL", 1e9)
    random = np.random.default_rng(0)
    grid = fit_table(SEEN, request.param)
    coded = {g.name: g.encode(SEEN[g.name]) for g in grid.columns if g.kind != "opaque"}
    derived = structure.find(grid, coded)
    names = [name for name in coded if name not in {d.name for d in derived}]
    plan = make_plan(grid, {name: coded[name] for name in names}, latents=2, width=4)
    model = IntegerModel(plan, {
        name: random.integers(-40, 41, shape).astype(np.int16) for name, shape in plan.shapes().items()
    })  # fmt: skip
    assert set(SEEN.column_names) == set(names) | {d.name for d in derived}
    return {"grid": grid, "derived": derived, "model": model}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_model_never_saw_is_within_its_bound(
    made: dict[str, Any], data: st.DataObject, tmp_path: Path
) -> None:
    """New names, any numbers, the columns in another order, one more among them."""
    rows = data.draw(st.integers(1, 20))
    columns: dict[str, Any] = {
        name: pa.array(
            data.draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), STORED[name]
        ).view(SEEN.schema.field(name).type)
        for name, values in UNSEEN.items()
    }
    columns["more"] = pa.array(range(rows))
    order = data.draw(st.permutations(list(columns)))
    table = pa.table({name: columns[name] for name in order})
    reach = made["model"].plan.reach
    codes = np.array(
        data.draw(st.lists(st.integers(-reach, reach), min_size=2 * rows, max_size=2 * rows)), np.int8
    )
    path = tmp_path / "t.svae"
    report = archive.write(table, path, **made, codes=codes.reshape(rows, 2), block_rows=7, threads=1)
    with archive.open(path, threads=1) as opened:
        assert opened.model is not None
        back = opened.read()
        assert opened.verify(table) == {c.name: c.max_error for c in report.per_column}
    bounds = {g.name: g.bound for g in made["grid"].columns if g.bound}
    for name in order:
        if name not in bounds:
            assert same(pa.concat_arrays(table[name].chunks), pa.concat_arrays(back[name].chunks)), name
            continue
        cells = [c.combine_chunks().view(STORED[name]).to_pylist() for c in (table[name], back[name])]
        for wanted, found in zip(*cells, strict=True):
            if wanted is None or not np.isfinite(float(wanted)):
                assert repr(found) == repr(wanted)
            else:
                assert abs(wanted - found) <= bounds[name], name


def test_a_column_that_the_model_codes_must_be_there(made: dict[str, Any], tmp_path: Path) -> None:
    for name in made["model"].columns:
        table, codes = SEEN.drop_columns([name]), np.zeros((SEEN.num_rows, 2), np.int8)
        with pytest.raises(SchemaError, match=f"^the model codes column '{name}', which the table lacks"):
            archive.write(table, tmp_path / "t.svae", **made, codes=codes)
        assert list(tmp_path.iterdir()) == []
