"""Charts: what is drawn is what was given, it is an SVG whatever the numbers and names, and axes have round marks."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vae import charts
from vae.charts import Line, line_chart, round_ticks

SVG = "{http://www.w3.org/2000/svg}"
NUMBERS = st.floats(-1e299, 1e299)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314  (our own)


def drawn(svg: str) -> list[str]:
    """The paths of the lines themselves, after those of the legend, the grid and the axis."""
    return [path.get("d", "") for path in parsed(svg).iter(f"{SVG}path") if path.get("stroke-width")]


def test_a_line_goes_through_its_points_and_breaks_where_one_is_missing() -> None:
    svg = line_chart([Line("a", range(5), [0.0, 10.0, math.nan, 5.0, 0.0])], "row")
    _, path = drawn(svg)
    assert re.sub(r"[^ML]", "", path) == "MLML"
    heights = [float(y) for y in re.findall(r" (\d+\.\d)", path)]
    assert heights[0] == heights[3] > heights[2] > heights[1]
    assert heights[2] == pytest.approx((heights[0] + heights[1]) / 2, abs=0.1)


def test_names_and_marks_are_text_whatever_they_hold() -> None:
    svg = line_chart(
        [Line("<a & b>", [0, 1], [1, 2], dots=True)], "x < y", "bits", ticks=[(0, "<0>"), (1, "1%")]
    )
    words = [text.text for text in parsed(svg).iter(f"{SVG}text")]
    assert {"<a & b>", "x < y", "bits", "<0>", "1%"} <= set(words)
    assert svg.count("<circle") == 3  # two points, and the legend's


@given(st.lists(st.one_of(st.floats(), st.just(0.0)), min_size=0, max_size=6))
def test_any_numbers_make_a_chart(values: list[float]) -> None:
    svg = line_chart([Line("a", range(len(values)), values)], "x", zero=True)
    places = [float(n) for n in re.findall(r"-?\d+\.\d", "".join(drawn(svg)))]
    assert all(0 <= place <= charts.WIDTH for place in places)


@given(NUMBERS, NUMBERS)
def test_marks_are_few_and_within(a: float, b: float) -> None:
    low, high = sorted((a, b))
    if high - low > max(1e-200, 1e-9 * max(abs(low), abs(high))):
        ticks = round_ticks(low, high)
        assert len(ticks) <= 6
        room = 1e-6 * (high - low)
        assert all(low - room <= tick <= high + room for tick in ticks)
