"""Figures: what is drawn is what was measured, and the files are pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vae import report

HISTORY = [
    {
        "step": step,
        "phase": phase,
        "loss": 90 / step,
        "bits": 100 / step,
        "code_bits": 3.0,
        "column_bits": 9.0,
    }
    for step, phase in (
        (10, "joint"),
        (20, "joint"),
        (30, "joint"),
        (40, "refit"),
        (50, "refit"),
        (60, "quantise"),
    )
]


def texts(figure: Any) -> list[str]:
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        found += [axes.get_title("left"), axes.get_title("right"), axes.get_xlabel(), axes.get_ylabel()]
        found += [text.get_text() for text in axes.texts]
        found += [label.get_text() for label in axes.get_yticklabels()]
    return found


def test_curves_show_the_history_and_name_the_phases() -> None:
    figure = report.training_curves(HISTORY)
    left, right = figure.axes
    assert left.lines[0].get_xydata().tolist() == [[entry["step"], entry["loss"]] for entry in HISTORY[1:]]
    drawn = {line.get_label(): list(line.get_ydata()) for line in right.lines}
    assert drawn["all"] == [entry["bits"] for entry in HISTORY[1:]]
    assert {"joint", "refit", "quantise"} <= set(texts(figure))
    assert {"nats per row", "bits per row"} <= set(texts(figure))


def test_curves_of_a_single_validation_are_drawn_whole() -> None:
    assert len(report.training_curves(HISTORY[:1]).axes[0].lines[0].get_xdata()) == 1


def test_bars_are_the_bits_the_dearest_on_top() -> None:
    figure = report.bits_by_column({"cheap": 0.25, "dear": 7.5}, 3.0)
    (axes,) = figure.axes
    heights = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    names = dict(zip((int(place) for place in axes.get_yticks()), texts(figure)[-3:], strict=True))
    assert {names[place]: width for place, width in heights.items()} == {
        "dear": 7.5,
        "sparse code": 3.0,
        "cheap": 0.25,
    }
    assert [names[place] for place in (2, 1, 0)] == ["dear", "sparse code", "cheap"]
    assert {"10.8 bits per row, by column", "7.50", "0.25"} <= set(texts(figure))


def test_many_columns_are_summed_up_below_the_dearest() -> None:
    figure = report.bits_by_column({f"column {i}": float(i) for i in range(100)})
    assert len(figure.axes[0].patches) == report.MOST_BARS
    assert "71 others" in texts(figure)
    assert sum(bar.get_width() for bar in figure.axes[0].patches) == sum(range(100))


def test_code_usage_counts_signs_and_non_zeros() -> None:
    codes = np.array([[0, 2, 0], [0, -1, 1], [0, 0, 1], [0, 3, 1]], np.int8)
    figure = report.code_usage(codes)
    left, right = figure.axes
    above, below = ([bar.get_height() for bar in group] for group in left.containers)
    assert above == [0.5, 0.75, 0.0]
    assert below == [0.25, 0.0, 0.0]
    assert [label.get_text() for label in left.get_xticklabels()] == ["1", "2", "0"]
    assert [bar.get_height() for bar in right.patches] == [0.0, 0.5, 0.5]
    assert figure.get_suptitle() == "Sparse codes: 1.5 of 3 latents on per row"


def tables() -> tuple[pa.Table, pa.Table]:
    times = pa.array([0, 86_400, 10 * 86_400, None], pa.timestamp("s", tz="UTC"))
    original = pa.table(
        {"n": [1.0, 2.0, None, 4.0], "c": ["a", "a", "b", None], "t": times, "k": [1, 1, 1, 1]}
    )
    restored = pa.table(
        {"n": [1.0, 2.5, 3.0, 3.5], "c": ["a", "a", "a", None], "t": times, "k": [1, 1, 1, 1]}
    )
    return original, restored


def test_originals_and_codes_carry_their_quality() -> None:
    figure = report.originals_and_codes(*tables())
    assert {"n", "c", "t", "k", "R² 0.89", "R² 1.00", "accuracy 67%", "constant"} <= set(texts(figure))
    assert len([axes for axes in figure.axes if axes.get_visible()]) == 4


def test_shares_of_a_category_count_nulls() -> None:
    figure = report.originals_and_codes(*tables(), names=["c"])
    before, after = ([bar.get_width() for bar in group] for group in figure.axes[0].containers)
    assert before == [0.5, 0.25, 0.25]
    assert after == [0.75, 0.0, 0.25]


def test_odd_columns_are_drawn_all_the_same(tmp_path: Path) -> None:
    far = pa.array([0, 2**60, 5], pa.timestamp("s"))
    odd = pa.table({
        "far": far,
        "day": pa.array([1, 2, 3], pa.date32()),
        "empty": pa.nulls(3, pa.float64()),
        "list": [[1], [2], [1]],
        "name": pa.array(["x" * 99, "y", "y"]).dictionary_encode(),
        "infinite": [float("inf"), 1.0, float("nan")],
    })  # fmt: skip
    assert report.save(report.originals_and_codes(odd, odd), tmp_path / "f.png").stat().st_size > 5_000


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_files_are_pictures(tmp_path: Path, rows: int) -> None:
    figures = [
        report.training_curves(HISTORY),
        report.bits_by_column({}, 0.0),
        report.code_usage(np.ones((rows, 64), np.float32)),
    ]
    for index, figure in enumerate(figures):
        path = report.save(figure, tmp_path / f"{index}.png")
        assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
