"""Small archives that have all that an archive may have, in parts: what the fuzzer begins with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import pyarrow as pa

from data.gridfit import fit_table
from data.images import image_field
from tests.fuzz.parts import Parts, take_apart
from vae.codec import archive, choice, structure, texts, writer
from vae.codec.images import ImageModel
from vae.codec.integer import IntegerModel
from vae.codec.pixels import PixelPlan
from vae.codec.plan import Plan
from vae.planning import make_plan

ROWS = 24


def seeds(folder: Path) -> dict[str, Parts]:
    """Archives of versions 1, 2 and 4 to 9, with and without a model, by name; written in `folder` on the way."""
    numbers = np.random.default_rng(0)
    steps = np.cumsum(numbers.integers(-1, 2, ROWS))
    names = numbers.integers(0, 4, ROWS)
    mixed = pa.table({
        "k": names, "twice": 2 * names, "step": steps, "far": steps * 1_000 + names,
        "name": pa.array([f"n{k}" for k in names]).dictionary_encode(), "f": numbers.normal(size=ROWS).round(2),
        "maybe": pa.array([None if k == 1 else float(k) for k in names]),
        "at": pa.array(1_600_000_000 + 60 * np.arange(ROWS), pa.timestamp("s", "UTC")),
        "l": pa.array([[1], None, [], [2, 3]] * (ROWS // 4)), "free": pa.array([f"x{k}" * k for k in range(ROWS)]),
    })  # fmt: skip
    fine = numbers.normal(size=4 * ROWS)
    seventh = np.array([float(f"{273.15 + k / 7:.15g}") for k in numbers.integers(0, 99, 4 * ROWS)])
    readings = pa.table({
        "fine": fine, "seventh": seventh, "both": fine + seventh, "rest": fine - seventh, "odd": np.tile(names, 4),
        "digits": [float(f"{x:.15g}") for x in fine.round(9) + seventh],
    })  # fmt: skip
    hot = pa.table({f"is_{k}": (names == k).astype(np.int8) for k in range(4)} | {"k": steps})
    found: dict[str, Parts] = {}
    for label, table, model in (
        ("stored", mixed, {}),
        ("hot", hot, {}),
        ("readings", readings, {}),
        ("nudged", readings, {"above": True, "deep": True, "direct": True, "fine": True}),
        ("model", mixed, {"above": False, "deep": False, "direct": False, "fine": False}),
        ("above", mixed, {"above": True, "deep": True}),
        ("newest", mixed, {"above": True, "deep": True, "direct": True, "fine": True}),
    ):
        path = folder / f"{label}.svae"
        with (
            mock.patch.object(writer, "CLOSE_CALL", 1e9),
            mock.patch.object(choice, "_group_pays", return_value=True),
            mock.patch.object(choice, "_function_pays", return_value=True),
        ):
            archive.write(table, path, **(_model(table, model, numbers) if model else {}), block_rows=16)
        found[label] = take_apart(path.read_bytes())
    with mock.patch.multiple(texts, _LEAST_MIXED=0, MIXED_SHARE=1e9):
        words = pa.array([f"n{k} of {n}" for k, n in enumerate(names.tolist())])
        archive.write(pa.table({"words": words, "k": names}), folder / "mixed.svae")
    found["mixed"] = take_apart((folder / "mixed.svae").read_bytes())
    return found | _image_seeds(folder, numbers)


def _image_seeds(folder: Path, numbers: np.random.Generator) -> dict[str, Parts]:
    """Archives of a few tiny images, by a model and stored within a bound."""
    shape = (3, 2, 3)
    greys = [None if k == 3 else numbers.integers(0, 256, 18).tolist() for k in range(6)]
    field = image_field("image", shape)
    table = pa.Table.from_arrays([pa.array(greys, field.type)], schema=pa.schema([field]))
    bounds, path = {"image": 9.0}, folder / "images.svae"
    grid = fit_table(table, bounds)
    plan = PixelPlan(
        name="image", height=3, width=2, channels=3, levels=grid["image"].high + 1, units=3, maps=2, latents=2
    )
    own = Plan(latents=2, width=1, prior_width=2, columns=())

    def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        return {name: numbers.integers(-40, 41, size).astype(np.int16) for name, size in shapes.items()}

    def modelled(plan: PixelPlan) -> dict[str, Any]:
        codes = numbers.integers(-1, 2, (6, 2)).astype(np.int8)
        own_model = IntegerModel(own, drawn(own.shapes()))
        return {"model": ImageModel(plan, own_model, drawn(plan.shapes())), "codes": codes, "grid": grid}

    found: dict[str, Parts] = {}
    for label, more in (
        ("images", modelled(plan)),
        ("counted", modelled(plan.model_copy(update={"counted": 3}))),
        ("greys", {}),
    ):
        with mock.patch.object(writer, "CLOSE_CALL", 1e9):
            archive.write(table, path, bounds=bounds, block_rows=4, **cast(Any, more))
        found[label] = take_apart(path.read_bytes())
    return found


def _model(table: pa.Table, change: dict[str, Any], numbers: np.random.Generator) -> dict[str, Any]:
    grid = fit_table(table)
    coded = {g.name: g.encode(table[g.name]) for g in grid.columns if g.kind != "opaque"}
    plan = make_plan(grid, coded, latents=2, width=4).model_copy(update=change)
    tensors = {
        name: numbers.integers(-40, 41, shape).astype(np.int16) for name, shape in plan.shapes().items()
    }
    return {
        "grid": grid,
        "derived": structure.find(grid, coded, keep=list(coded)),
        "model": IntegerModel(plan, tensors),
        "codes": numbers.integers(-1, 2, (table.num_rows, 2)).astype(np.int8),
    }
