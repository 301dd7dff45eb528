"""Floats as text in the styles that programs write, vectorised.

All styles but `fixed` and `printf` print the fewest digits that give the float back; they differ in when and how they
write an exponent. Arrow prints the common cases; the few cells on which the styles differ are spelled one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

pc: Any = pyarrow.compute

ALIKE = ("shortest", "plain", "r", "readr")
"""Styles that differ only on texts that match `ODD`."""
ODD = r"e|000$|^-?0\.000(?:[1-9]$|0)"
"""A regular expression for what Arrow prints where another style may print something else."""
_TINY = r"e-|^-?0\.0000"
"""What Arrow prints below 0.0001, where all other styles write an exponent of two digits."""
_SPELLED = {"plain": r"e\+", "repr": r"e\+", "r": r"e\+|00000$|^-?0\.000[1-9]$", "readr": r"e\+|000$"}
"""What Arrow prints where a style may have its own way; rare enough for one Python call a value."""
STYLE = re.compile(r"fixed:(?:\d|1[0-5])|shortest|plain|repr|r|readr|printf:%\.\d{1,2}[efg]")
_EXACT = 2.0**53
"""Below this magnitude every integer is a float."""


def render_floats(values: pa.Array, style: str) -> pa.Array:
    """Texts of finite floats; nulls stay null.

    >>> render_floats(pa.array([100000.0, 0.5]), "r").to_pylist()
    ['1e+05', '0.5']
    """
    if style.startswith("fixed:"):
        return _render_fixed(values, int(style.removeprefix("fixed:")))
    if style.startswith("printf:"):
        conversion = style.removeprefix("printf:")
        return _render_each(values, lambda value: _spell_converted(value, conversion))
    texts = pc.cast(values, pa.string())
    if style == "shortest":
        return texts
    if style == "repr":
        whole = pc.invert(pc.match_substring_regex(texts, r"[.a-z]"))
        texts = pc.if_else(whole, pc.binary_join_element_wise(texts, ".0", ""), texts)
    spelled = pc.fill_null(pc.match_substring_regex(texts, _SPELLED[style]), False)
    tiny = pc.fill_null(pc.match_substring_regex(texts, _TINY), False)
    if pc.any(tiny, min_count=0).as_py():
        texts = pc.replace_with_mask(texts, tiny, _with_exponent(pc.filter(texts, tiny)))
    if pc.any(spelled, min_count=0).as_py():
        texts = pc.replace_with_mask(
            texts, spelled, _render_each(pc.filter(values, spelled), _SPELLERS[style])
        )
    return texts


def _with_exponent(texts: pa.Array) -> pa.Array:
    """Numbers below 0.0001 in size, as Arrow prints them, with an exponent of at least two digits."""
    texts = pc.replace_substring_regex(texts, r"e-(\d)$", r"e-0\1")
    for zeros, power in (("0000", "05"), ("00000", "06")):
        texts = pc.replace_substring_regex(texts, rf"^(-?)0\.{zeros}([1-9])$", rf"\1\2e-{power}")
        texts = pc.replace_substring_regex(texts, rf"^(-?)0\.{zeros}([1-9])(\d+)$", rf"\1\2.\3e-{power}")
    return texts


def _spell_converted(value: float, conversion: str) -> str:
    text = conversion % value
    return text if float(text) == value else repr(value)


def _spell_plain(value: float) -> str:
    return repr(value).removesuffix(".0")


def _spell_as_r(value: float) -> str:
    """R takes the exponent where that is shorter: `1e+05`, but `123456`."""
    sign, digits, exponent = _digits(value)
    positional = f"{Decimal(repr(value)).normalize():f}"
    power = exponent + len(digits) - 1
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    scientific = f"{sign}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    return scientific if len(scientific) < len(positional) else positional


def _spell_as_readr(value: float) -> str:
    """R's package readr writes three and more trailing zeros as an exponent: `1e3`, `12e4`."""
    sign, digits, exponent = _digits(value)
    return f"{sign}{digits}e{exponent}" if exponent > 2 else _spell_plain(value)


_SPELLERS: dict[str, Callable[[float], str]] = {
    "plain": _spell_plain,
    "repr": repr,
    "r": _spell_as_r,
    "readr": _spell_as_readr,
}


def _digits(value: float) -> tuple[str, str, int]:
    """Sign, fewest digits, and the power of ten of the last digit."""
    number = Decimal(repr(value)).normalize()
    sign, digits, exponent = number.as_tuple()
    return "-" * sign, "".join(map(str, digits)), int(exponent)


def _render_fixed(values: pa.Array, decimals: int) -> pa.Array:
    """Texts with so many decimals; fewest digits where that would not give the value back."""
    numbers = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
    size = np.abs(numbers.astype(np.float64))
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(size * 10.0**decimals)
        kept = (scaled < _EXACT) & ((scaled / 10.0**decimals).astype(numbers.dtype) == np.abs(numbers))
        units = np.where(kept, scaled, 0.0).astype(np.int64)
    whole, rest = np.divmod(units, 10**decimals)
    texts = pc.cast(pa.array(whole), pa.string())
    if decimals:
        digits = pc.utf8_lpad(pc.cast(pa.array(rest), pa.string()), decimals, "0")
        texts = pc.binary_join_element_wise(texts, digits, ".")
    negative = np.signbit(numbers)
    if negative.any():
        texts = pc.if_else(pa.array(negative), pc.binary_join_element_wise("-", texts, ""), texts)
    if not kept.all():
        texts = pc.if_else(pa.array(kept), texts, pc.cast(values, pa.string()))
    return pc.if_else(values.is_null(), None, texts) if values.null_count else texts


def _render_each(values: pa.Array, render: Callable[[float], str]) -> pa.Array:
    """One Python call a value: for the few."""
    return pa.array([None if value is None else render(value) for value in values.to_pylist()], pa.string())
