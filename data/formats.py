"""How one column's values are spelled in text: parse and print, vectorised, each the other's inverse.

A format has a short name that a schema keeps in `Column.text_format`:

========================  ===================================================================================
`int`                     canonical integers: no sign but `-`, no leading zeros
`fixed:2`                 this many decimals, trailing zeros included
`shortest`                fewest digits that give the float back, whole numbers bare (`10`, `0.00001`, `1e-7`)
`plain`                   the same, exponents as C writes them (`10`, `1e-05`)
`r`, `readr`              the same, as R (`1e+05`) and its package readr (`1e3`) write exponents
`repr`                    the same, whole numbers with `.0`, as Python writes floats (`10.0`, `1e-05`)
`printf:%.18e`            C's conversion
`bool:true/false`         the two words
`%Y-%m-%dT%H:%M:%SZ`      a timestamp; `%S` prints as many decimals as the Arrow unit has
========================  ===================================================================================

After a float format may follow ` nan=NaN` and ` inf=Infinity`, how these are spelled (`nan` and `inf` by default), and
` decimal=,`, what stands for the decimal point.
A value that a format cannot print so that it comes back (one restored within an error bound, say) prints in full
instead: printing never adds an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute

from data.errors import SchemaError
from data.floattext import ALIKE, ODD, STYLE, render_floats

pc: Any = pyarrow.compute

NAN_SPELLINGS = ("nan", "NaN", "NAN")
INF_SPELLINGS = ("inf", "Inf", "INF", "infinity", "Infinity", "INFINITY")
BOOLEAN_WORDS = (("true", "false"), ("True", "False"), ("TRUE", "FALSE"))
_INTEGERS_PRINT_ALIKE = 10**10
"""Below this magnitude the styles `ALIKE` print an integer as `int` does, unless it is `ODD`."""


class TextFormat(Protocol):
    """A pair of inverse functions between text and values; nulls pass through both."""

    @property
    def spec(self) -> str:
        """The name that `Column.text_format` keeps."""
        ...

    @property
    def type(self) -> pa.DataType:
        """The Arrow type of the values."""
        ...

    def parse(self, texts: pa.Array) -> pa.Array:
        """Values of these texts; ValueError (which ArrowInvalid is) if one cannot be a value."""
        ...

    def render(self, values: pa.Array) -> pa.Array:
        """Texts of these values."""
        ...


def comes_back(form: TextFormat, texts: pa.Array) -> bool:
    """Whether every one of these texts is printed again from its parsed value."""
    try:
        return form.render(form.parse(texts)).equals(texts)
    except (ValueError, pa.ArrowException):
        return False


@dataclass(frozen=True)
class IntegerFormat:
    """Canonical decimal integers."""

    type: pa.DataType = pa.int64()
    spec: str = "int"

    def parse(self, texts: pa.Array) -> pa.Array:
        return pc.cast(texts, self.type)

    def render(self, values: pa.Array) -> pa.Array:
        return pc.cast(values, pa.string())


@dataclass(frozen=True)
class BooleanFormat:
    """Two words."""

    true: str
    false: str
    type: pa.DataType = pa.bool_()

    @property
    def spec(self) -> str:
        return f"bool:{self.true}/{self.false}"

    def parse(self, texts: pa.Array) -> pa.Array:
        return pc.equal(texts, self.true)

    def render(self, values: pa.Array) -> pa.Array:
        return pc.if_else(values, self.true, self.false)


@dataclass(frozen=True)
class FloatFormat:
    """Floats in one style: `fixed:N`, `shortest`, `plain`, `repr` or `printf:%...`."""

    style: str
    nan: str = "nan"
    inf: str = "inf"
    decimal: str = "."
    type: pa.DataType = pa.float64()

    @property
    def spec(self) -> str:
        nan = "" if self.nan == "nan" else f" nan={self.nan}"
        inf = "" if self.inf == "inf" else f" inf={self.inf}"
        decimal = "" if self.decimal == "." else f" decimal={self.decimal}"
        return self.style + nan + inf + decimal

    def parse(self, texts: pa.Array) -> pa.Array:
        return pc.cast(
            texts if self.decimal == "." else pc.replace_substring(texts, self.decimal, "."), self.type
        )

    def render(self, values: pa.Array) -> pa.Array:
        texts = self._render_finite(values)
        finite = pc.is_finite(values)
        if pc.all(finite, min_count=0).as_py():
            return texts
        words = pc.if_else(
            pc.is_nan(values), self.nan, pc.if_else(pc.greater(values, 0.0), self.inf, f"-{self.inf}")
        )
        return pc.if_else(finite, texts, words)

    def _render_finite(self, values: pa.Array) -> pa.Array:
        texts = render_floats(values, self.style)
        return texts if self.decimal == "." else pc.replace_substring(texts, ".", self.decimal)


@dataclass(frozen=True)
class IsoFormat:
    """ISO 8601 timestamps, in UTC or without a zone, all with the same parts."""

    pattern: str
    unit: str = "s"

    @property
    def spec(self) -> str:
        return self.pattern

    @property
    def type(self) -> pa.DataType:
        return pa.timestamp(self.unit, tz="UTC" if self._suffix else None)

    @property
    def _suffix(self) -> str:
        return next((suffix for suffix in _UTC_SUFFIXES if self.pattern.endswith(suffix)), "")

    def parse(self, texts: pa.Array) -> pa.Array:
        if not pc.all(
            pc.match_substring_regex(texts, _iso_regex(self.pattern, self.unit)), min_count=0
        ).as_py():
            raise ValueError("not of this pattern")
        bare = pc.utf8_slice_codeunits(texts, 0, -len(self._suffix)) if self._suffix else texts
        return pc.cast(bare, pa.timestamp(self.unit)).view(pa.int64()).view(self.type)

    def render(self, values: pa.Array) -> pa.Array:
        numbers = pc.fill_null(values.view(pa.int64()), 0).to_numpy(zero_copy_only=False)
        stamps = numbers.view(f"datetime64[{self.unit}]")
        shown = self.unit if "%S" in self.pattern else "m" if "%M" in self.pattern else "D"
        texts = _iso_texts(stamps, shown)
        lost = stamps != stamps.astype(f"datetime64[{shown}]")
        if lost.any():
            texts = pc.if_else(pa.array(lost), _iso_texts(stamps, self.unit), texts)
        if " " in self.pattern:
            texts = pc.replace_substring(texts, "T", " ")
        if self._suffix:
            texts = pc.binary_join_element_wise(texts, self._suffix, "")
        return pc.if_else(values.is_null(), None, texts) if values.null_count else texts


@dataclass(frozen=True)
class PatternFormat:
    """Timestamps of any strftime pattern; slower than ISO, and only on request.

    Rows of which one would not come back print in ISO 8601, all of them.
    """

    pattern: str
    type: pa.DataType

    @property
    def spec(self) -> str:
        return self.pattern

    def parse(self, texts: pa.Array) -> pa.Array:
        bare = pc.strptime(texts, format=self.pattern, unit=self.type.unit)
        return bare.view(pa.int64()).view(self.type)

    def render(self, values: pa.Array) -> pa.Array:
        texts = pc.strftime(values, format=self.pattern)
        try:
            if self.parse(texts).equals(values):
                return texts
        except (ValueError, pa.ArrowException):
            pass
        full = "%Y-%m-%dT%H:%M:%S" + ("Z" if self.type.tz else "")
        return IsoFormat(full, self.type.unit).render(values)


_UTC_SUFFIXES = ("Z", "+00:00")
_FRACTIONS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:([T ])\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00)?)?")
_ISO_PATTERN = re.compile(r"%Y-%m-%d(?:[T ]%H:%M(?::%S)?(?:Z|\+00:00)?)?")
_SURE_DIGITS = 16
"""A decimal of this length, point included, comes back from a float whatever its digits."""
_NUMBER_STARTS = tuple("-0123456789")
_DECIMAL = re.compile(r"-?\d+[.,](\d{1,15})")
_EXPONENT = re.compile(r"-?\d[.,](\d+)e[+-]\d\d+")


def guess_formats(text: str) -> list[TextFormat]:
    """The formats that a column may have of which this is one cell, best first.

    >>> [form.spec for form in guess_formats("1.50")]
    ['fixed:2']
    """
    forms: list[TextFormat] = [BooleanFormat(*words) for words in BOOLEAN_WORDS if text in words]
    if match := _ISO.fullmatch(text):
        forms += _guess_iso(match)
    if text.startswith(_NUMBER_STARTS):
        forms += [IntegerFormat(), IntegerFormat(pa.uint64())]
        styles = [*ALIKE, "repr"]
        if (match := _DECIMAL.fullmatch(text)) and len(text) <= _SURE_DIGITS:
            styles.insert(0, f"fixed:{len(match[1])}")
        elif match := _EXPONENT.fullmatch(text):
            styles.append(f"printf:%.{len(match[1])}e")
        elif len(text) > 17:
            styles.append("printf:%.17g")
        forms += [FloatFormat(style) for style in styles]
        forms += [FloatFormat(style, decimal=",") for style in styles]
    return [form for form in forms if comes_back(form, pa.array([text]))]


def surviving_formats(forms: list[TextFormat], texts: pa.Array) -> list[TextFormat]:
    """Those of `forms` in which all these texts (without nulls, NaN or inf) come back."""
    if not forms:
        return []
    leader = forms[0]
    if not _leads(leader) or not comes_back(leader, texts) or not _is_common(leader, texts):
        return [form for form in forms if comes_back(form, texts)]
    # The usual case: several styles print the same, and one of them has been tried.
    return [
        form for form in forms if form is leader or _prints_alike(form, leader) or comes_back(form, texts)
    ]


def find_format(spec: str, type_: pa.DataType, column: str) -> TextFormat:
    """The format of this name for values of this type.

    Raises:
        SchemaError: There is no such format; names the column.
    """
    if pa.types.is_integer(type_) and spec == "int":
        return IntegerFormat(type_)
    if pa.types.is_boolean(type_) and spec.startswith("bool:") and "/" in spec:
        true, _, false = spec.removeprefix("bool:").partition("/")
        return BooleanFormat(true, false)
    if pa.types.is_floating(type_):
        style, *options = spec.split(" ")
        if STYLE.fullmatch(style) and (style == "shortest" or not pa.types.is_float16(type_)):
            words = {key: word for key, _, word in (option.partition("=") for option in options)}
            if set(words) <= {"nan", "inf", "decimal"}:
                return FloatFormat(style, **words, type=type_)
    if pa.types.is_timestamp(type_) and "%" in spec:
        zone = "UTC" if spec.endswith(_UTC_SUFFIXES) else None
        if _ISO_PATTERN.fullmatch(spec) and type_.tz == zone:
            return IsoFormat(spec, type_.unit)
        return PatternFormat(spec, type_)
    raise SchemaError(
        f"column {column!r}: {spec!r} is not a text format for {type_}; leave it out and it is found"
    )


def _guess_iso(match: re.Match[str]) -> list[TextFormat]:
    separator, seconds, fraction, suffix = match.groups()
    unit = {4: "ms", 7: "us", 10: "ns"}.get(len(fraction)) if fraction else "s"
    if unit is None or (fraction and not seconds):
        return []
    time = "" if separator is None else f"{separator}%H:%M{':%S' if seconds else ''}{suffix or ''}"
    return [IsoFormat(f"%Y-%m-%d{time}", unit)]


def _iso_regex(pattern: str, unit: str) -> str:
    """A regular expression (RE2) for the texts of an ISO pattern."""
    fraction = rf"\.\d{{{_FRACTIONS[unit]}}}" if _FRACTIONS[unit] else ""
    regex = pattern.replace("+", r"\+").replace("%Y", r"\d{4}").replace("%S", r"\d\d" + fraction)
    return "^" + re.sub("%[mdHM]", lambda _: r"\d\d", regex) + "$"


def _iso_texts(stamps: np.ndarray[Any, Any], unit: Any) -> pa.Array:
    return pa.array(np.datetime_as_string(stamps, unit=unit), pa.string())


def _leads(form: TextFormat) -> bool:
    return isinstance(form, IntegerFormat) or (isinstance(form, FloatFormat) and form.style == "shortest")


def _is_common(form: TextFormat, texts: pa.Array) -> bool:
    """Whether nothing in these texts, which come back in `form`, is written otherwise in a style of `ALIKE`."""
    if isinstance(form, IntegerFormat):
        extremes = pc.min_max(form.parse(texts)).as_py()
        if max(abs(extremes["min"]), abs(extremes["max"])) >= _INTEGERS_PRINT_ALIKE:
            return False
    return not pc.any(pc.match_substring_regex(texts, ODD), min_count=0).as_py()


def _prints_alike(form: TextFormat, leader: TextFormat) -> bool:
    if not isinstance(form, FloatFormat) or form.style not in ALIKE:
        return False
    return not isinstance(leader, FloatFormat) or form.decimal == leader.decimal
