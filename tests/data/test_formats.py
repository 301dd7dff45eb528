"""The law of every text format: what it parses it prints again, what it prints it parses again."""

from __future__ import annotations

import math
import struct

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data.errors import SchemaError
from data.floattext import ALIKE, render_floats
from data.formats import (
    BooleanFormat,
    FloatFormat,
    IntegerFormat,
    IsoFormat,
    PatternFormat,
    comes_back,
    find_format,
    guess_formats,
    surviving_formats,
)

FLOAT_STYLES = [*ALIKE, "repr", "fixed:0", "fixed:2", "fixed:15", "printf:%.17g", "printf:%.18e"]


@pytest.mark.parametrize("style", FLOAT_STYLES)
@pytest.mark.parametrize("decimal", [".", ","])
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_every_float_comes_back_bit_for_bit(style, decimal, values):
    form = FloatFormat(style, decimal=decimal)

    restored = form.parse(form.render(pa.array(values))).to_pylist()

    assert [struct.pack("d", value) for value in restored] == [struct.pack("d", value) for value in values]


@given(
    values=st.lists(
        st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.builds(lambda k, e: k * 10.0**e, st.integers(-99, 99), st.integers(-12, 20)),
        )
    )
)
def test_repr_is_pythons(values):
    assert render_floats(pa.array(values, pa.float64()), "repr").to_pylist() == [
        repr(value) for value in values
    ]


@pytest.mark.parametrize(
    ("style", "value", "text"),
    [
        ("shortest", 1e-5, "0.00001"),
        ("plain", 1e-5, "1e-05"),
        ("plain", 1e16, "1e+16"),
        ("r", 100000.0, "1e+05"),
        ("r", 123456.0, "123456"),
        ("r", 120000.0, "120000"),
        ("r", 0.0001, "1e-04"),
        ("r", 0.00012, "0.00012"),
        ("r", -3.5e-17, "-3.5e-17"),
        ("readr", 1000.0, "1e3"),
        ("readr", -12000.0, "-12e3"),
        ("readr", 1012.3, "1012.3"),
        ("readr", 100.0, "100"),
        ("fixed:2", 0.5, "0.50"),
        ("fixed:2", -0.0, "-0.00"),
        ("fixed:0", 3.0, "3"),
        ("printf:%.3e", 12340.0, "1.234e+04"),
        ("printf:%.3e", 12345.0, "12345.0"),
    ],
)
def test_styles_print_as_their_programs_do(style, value, text):
    assert render_floats(pa.array([value, None]), style).to_pylist() == [text, None]


def test_a_value_between_two_printed_ones_prints_in_full():
    texts = FloatFormat("fixed:2").render(pa.array([1.25, 1.254, 1e300])).to_pylist()

    assert texts == ["1.25", "1.254", "1e+300"]


@pytest.mark.parametrize(("nan", "inf"), [("nan", "inf"), ("NaN", "Infinity"), ("NAN", "INF")])
def test_nan_and_inf_keep_their_spelling(nan, inf):
    form = FloatFormat("shortest", nan=nan, inf=inf)
    texts = pa.array([nan, inf, f"-{inf}", "1.5", None])

    values = form.parse(texts).to_pylist()

    assert math.isnan(values[0])
    assert values[1:] == [math.inf, -math.inf, 1.5, None]
    assert form.render(form.parse(texts)).equals(texts)
    assert find_format(form.spec, pa.float64(), "x") == form


@pytest.mark.parametrize(
    "text",
    [
        "00123",
        "+5",
        " 5",
        "5 ",
        "1_000",
        "0x10",
        "1.",
        ".5",
        "",
        "abc",
        "2013-02-30",
        "2013-13-01",
        "٣",
        "1,234.5",
        "1e400",
    ],
)
def test_what_would_not_come_back_has_no_format(text):
    assert guess_formats(text) == []


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("5", "int"),
        ("-5", "int"),
        ("9007199254740993", "int"),
        ("18446744073709551615", "int"),
        ("1.50", "fixed:2"),
        ("-0", "shortest"),
        ("0,5", "fixed:1 decimal=,"),
        ("1e-7", "shortest"),
        ("1e-07", "plain"),
        ("1e3", "readr"),
        ("10.357019999999999", "shortest"),
        ("0.10000000000000001", "printf:%.17g"),
        ("1.000000000000000000e+00", "printf:%.18e"),
        ("True", "bool:True/False"),
        ("2013-01-01", "%Y-%m-%d"),
        ("2013-01-01 10:30", "%Y-%m-%d %H:%M"),
        ("2013-01-01T10:30:00Z", "%Y-%m-%dT%H:%M:%SZ"),
        ("2013-01-01 10:30:00.123+00:00", "%Y-%m-%d %H:%M:%S+00:00"),
    ],
)
def test_the_best_format_comes_first(text, spec):
    assert guess_formats(text)[0].spec == spec


@given(numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_integers_come_back(numbers):
    assert comes_back(IntegerFormat(), pa.array([str(number) for number in numbers]))


@pytest.mark.parametrize(
    ("pattern", "unit"),
    [
        ("%Y-%m-%d", "s"),
        ("%Y-%m-%d %H:%M", "s"),
        ("%Y-%m-%dT%H:%M:%S", "s"),
        ("%Y-%m-%dT%H:%M:%SZ", "ms"),
        ("%Y-%m-%d %H:%M:%S+00:00", "us"),
        ("%Y-%m-%dT%H:%M:%S", "ns"),
    ],
)
def test_timestamps_come_back_also_off_the_pattern(pattern, unit):
    form = IsoFormat(pattern, unit)
    day = 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    stamps = pa.array([0, -day, 3 * day, None], pa.int64()).view(form.type)
    texts = form.render(stamps)

    assert form.parse(texts).equals(stamps)
    assert comes_back(form, texts)
    odd = pa.array([61 * day // 86_400], pa.int64()).view(form.type)
    assert form.render(odd)[0].as_py().startswith("1970-01-01")
    if "%S" not in pattern and "%H" not in pattern:
        assert form.render(odd).to_pylist() == ["1970-01-01T00:01:01"]  # In full: nothing is lost.


def test_other_patterns_work_on_request():
    form = find_format("%d/%m/%Y %H:%M:%S", pa.timestamp("s"), "when")

    assert isinstance(form, PatternFormat)
    assert comes_back(form, pa.array(["16/12/2006 17:24:00", None]))
    short = find_format("%d/%m/%Y", pa.timestamp("s"), "when")
    assert short.render(pa.array([61], pa.timestamp("s"))).to_pylist() == ["1970-01-01T00:01:01"]


def test_booleans_of_any_two_words():
    form = find_format("bool:yes/no", pa.bool_(), "x")

    assert form == BooleanFormat("yes", "no")
    assert comes_back(form, pa.array(["yes", "no", None]))
    assert not comes_back(form, pa.array(["yes", "maybe"]))


@pytest.mark.parametrize(
    ("spec", "type_"),
    [
        ("fixed:99", pa.float64()),
        ("fixed:2", pa.float16()),
        ("int", pa.float64()),
        ("shout", pa.float64()),
        ("x", pa.string()),
    ],
)
def test_an_unknown_format_is_refused_by_name(spec, type_):
    with pytest.raises(SchemaError) as error:
        find_format(spec, type_, "delay")

    assert (
        str(error.value)
        == f"column 'delay': {spec!r} is not a text format for {type_}; leave it out and it is found"
    )


@given(
    texts=st.lists(
        st.one_of(
            st.integers(-(10**18), 10**18).map(str),
            st.decimals(
                allow_nan=False, allow_infinity=False, places=2, min_value=-(10**6), max_value=10**6
            ).map(str),
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
            st.floats(allow_nan=False, allow_infinity=False).map(lambda value: f"{value:g}"),
        ),
        min_size=1,
    )
)
@example(texts=["0", "9999999999"])
@example(texts=["0", "10000000001"])
@example(texts=["-10000000001", "0.5"])
def test_the_shortcut_keeps_only_formats_in_which_all_comes_back(texts):
    array = pa.array(texts)
    forms = guess_formats(texts[0])

    assert surviving_formats(forms, array) == [form for form in forms if comes_back(form, array)]


def test_many_random_floats_print_alike_in_all_styles_where_the_shortcut_says_so():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.round(rng.normal(size=2000), 4), rng.integers(-(10**9), 10**9, 2000) / 1000])
    array = render_floats(pa.array(values), "shortest")
    forms = [FloatFormat(style) for style in ALIKE]

    assert surviving_formats(forms, array) == [form for form in forms if comes_back(form, array)]
