"""Arrow values in another type, none of them changed: what the type cannot hold is refused, with a value that it was.

Arrow's own casts are nearly that: they take 2 for true, drop the hour of a date, make infinity of 1e300 where a float32
is asked for, and read "0x10" as 16. Errors here are Arrow's, and name no column: callers do.
"""

from __future__ import annotations

import contextlib
import math
import re
from decimal import Decimal
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as _pc

pc = cast(Any, _pc)

EXACT_IN_DOUBLE = 2**53
"""From here on a double is the nearest one to several whole numbers."""
_EXACT = {16: 2**11, 32: 2**24, 64: EXACT_IN_DOUBLE}
_SAFE_DIGITS = {16: 3, 32: 6}
"""Decimal digits that a float of so many bits keeps, whichever they are."""
_DAYS = (-719_528, 2_932_896)
"""The first days of the years 0 and 10000, counted from 1970: between them ISO text has four digits for a year."""
_PER_DAY = {"s": 86_400, "ms": 86_400_000, "us": 86_400_000_000}


def convert(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """The values as `kind`, or as text of them says.

    >>> convert(pa.array(["1.50", None]), pa.float32()).to_pylist()
    [1.5, None]

    Raises:
        pa.ArrowInvalid: A value would change, or has another meaning (a number is no date).
        pa.ArrowNotImplementedError: There is no such conversion.
    """
    if values.null_count == len(values):
        return pa.nulls(len(values), kind)
    if pa.types.is_dictionary(kind):
        return convert(values, kind.value_type).cast(kind)
    given, wanted = _family(values.type), _family(kind)
    if given == "text":
        return _parsed(values.cast(pa.string()), kind)
    if given != wanted:
        way_out = "; read it as text (dtype=str)" if wanted == "text" else ""
        raise pa.ArrowInvalid(f"has {given} ({values.type}) where the model has {wanted} ({kind}){way_out}")
    if given == "numbers":
        return _number(values, kind)
    if given == "times":
        return _time(values, kind)
    if given == "lists" and _family(cast(Any, kind).value_type) == "numbers":
        convert(pc.list_flatten(values), cast(Any, kind).value_type)  # for what it refuses
    return values.cast(kind)


def spell(values: pa.Array) -> pa.Array:
    """Text of the values that `convert` reads back, with all digits; moments with a zone in UTC.

    >>> spell(pa.array([0.1, float("nan"), None])).to_pylist()
    ['0.1', 'nan', None]

    Raises:
        pa.ArrowInvalid: A year that ISO text has no four digits for.
    """
    kind: Any = values.type
    if pa.types.is_dictionary(kind):
        return spell(cast(Any, values).dictionary_decode())
    if pa.types.is_floating(kind):
        return pa.array([None if v is None else repr(v) for v in values.to_pylist()], pa.string())
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        _check_years(values)
    if pa.types.is_timestamp(kind):
        texts = pc.strftime(values.cast(pa.timestamp(kind.unit)), "%Y-%m-%dT%H:%M:%S")
        return pc.binary_join_element_wise(texts, "Z", "") if kind.tz else texts
    return values.cast(pa.string())


def _check_years(values: pa.Array) -> None:
    kind: Any = values.type
    if pa.types.is_date32(kind):
        per_day, counts = 1, values.cast(pa.int32())
    elif pa.types.is_timestamp(kind) and kind.unit == "ns":
        return  # 1677 to 2262
    else:
        per_day, counts = _PER_DAY["ms" if pa.types.is_date(kind) else kind.unit], values.cast(pa.int64())
    found = pc.min_max(counts).as_py()
    if (
        found["min"] is not None
        and not _DAYS[0] * per_day <= found["min"] <= found["max"] < _DAYS[1] * per_day
    ):
        raise pa.ArrowInvalid("a year outside 0 to 9999 has no ISO text, as which times travel")


def _family(kind: pa.DataType) -> str:
    """What converts into each other without a second meaning: a number is no date, though Arrow would have it so.

    >>> _family(pa.date32()), _family(pa.decimal128(9, 2)), _family(pa.large_string())
    ('times', 'numbers', 'text')
    """
    is_any = pa.types
    if is_any.is_string(kind) or is_any.is_large_string(kind) or is_any.is_string_view(kind):
        return "text"
    if (
        is_any.is_boolean(kind)
        or is_any.is_decimal(kind)
        or is_any.is_integer(kind)
        or is_any.is_floating(kind)
    ):
        return "numbers"
    if is_any.is_list(kind) or is_any.is_large_list(kind) or is_any.is_fixed_size_list(kind):
        return "lists"
    return "times" if is_any.is_temporal(kind) else "others"


def _number(values: pa.Array, kind: pa.DataType) -> pa.Array:
    given, is_any = values.type, pa.types
    if is_any.is_decimal(kind) and not is_any.is_decimal(given):
        # By the text: 1.1 as a double is not 1.10, and Arrow asks room for the most digits an integer could have.
        return pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string()).cast(kind)
    if is_any.is_decimal(given):
        return _of_decimals(values, kind) if is_any.is_floating(kind) else values.cast(kind)
    if is_any.is_floating(given) and is_any.is_floating(kind):
        return _rounded(values, kind)
    if is_any.is_floating(given) and is_any.is_integer(kind):
        _check_whole(values, kind)
    return _unchanged(values, values.cast(kind))


def _check_whole(values: pa.Array, kind: pa.DataType) -> None:
    wide = values.cast(pa.float64())
    largest = pc.max(pc.abs(wide)).as_py()
    if largest == math.inf:
        raise pa.ArrowInvalid(f"infinity does not fit into {kind}")
    if largest is not None and largest >= _EXACT[values.type.bit_width]:
        raise pa.ArrowInvalid(
            f"{largest:.0f} as a float has lost digits; read it as dtype='Int64' or as text"
        )


def _of_decimals(values: pa.Array, kind: pa.DataType) -> pa.Array:
    found = values.cast(pa.float64())
    for value, number in zip(values.to_pylist(), found.to_pylist(), strict=True):
        if value is not None and Decimal(repr(number)) != value:
            raise pa.ArrowInvalid(f"{value} does not fit into {kind} without loss")
    return _rounded(found, kind)


def _rounded(values: pa.Array, kind: Any) -> pa.Array:
    """Floats in another width; a narrower one keeps a value if it could be its print: 0.1 is not a float32 either."""
    found = values.cast(kind)
    if kind.bit_width >= values.type.bit_width:
        return found
    wide, back = values.cast(pa.float64()), found.cast(pa.float64())
    changed = pc.and_(pc.not_equal(wide, back), pc.is_finite(wide))
    pairs = zip(pc.filter(wide, changed).to_pylist(), pc.filter(back, changed).to_pylist(), strict=True)
    for value, narrow in pairs:
        if not _prints_as(narrow, value, _SAFE_DIGITS[kind.bit_width]):
            in_range = 0 < abs(narrow) < math.inf
            way_out = f"; round it first, as astype('float{kind.bit_width}') does" if in_range else ""
            raise pa.ArrowInvalid(f"{value!r} does not fit into {kind} without loss{way_out}")
    return found


def _prints_as(number: float, read: float, digits: int) -> bool:
    """Whether `read` is what some print of `number` says, of `digits` digits or more.

    >>> as_float32 = 0.100000001490116119384765625
    >>> _prints_as(as_float32, 0.1, 6), _prints_as(as_float32, 0.100000001, 6), _prints_as(as_float32, 0.10000001, 6)
    (True, True, False)
    """
    return any(float(f"{number:.{count}g}") == read for count in range(digits, 18))


def _time(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(values.type) and values.type.tz and not getattr(kind, "tz", "no"):
        raise pa.ArrowInvalid(zone_refused(values.type.tz))
    return _unchanged(values, values.cast(kind))


def zone_refused(zone: object) -> str:
    """What to say of a time with a zone for a model whose times have none."""
    return f"has a zone ({zone}), the model's times have none; take it off"


def _unchanged(values: pa.Array, found: pa.Array) -> pa.Array:
    """`found`, if it says all that `values` do: Arrow takes 2 for true, and drops the hour of a date."""
    changed = pc.not_equal(found.cast(values.type), values)
    if pc.any(changed).as_py():
        first = spell(pc.filter(values, changed))[0]
        raise pa.ArrowInvalid(f"{first} does not fit into {found.type} without loss")
    return found


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_integer(kind):
        _check_all(texts, r"^-?[0-9]+$", "is no whole number in decimal digits")
    if pa.types.is_floating(kind):
        return _rounded(_floats(texts), kind)
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            # Arrow reads either only texts with an offset or only texts without: say UTC where nothing is said.
            has_zone = pc.match_substring_regex(texts, r"(Z|[+-]\d\d:?\d\d)$")
            texts = pc.if_else(has_zone, texts, pc.binary_join_element_wise(texts, "Z", ""))
        return _moments(texts, kind)
    if pa.types.is_time(kind):  # Arrow reads no times of day, but moments
        day = _moments(pc.binary_join_element_wise("1970-01-01", texts, "T"), pa.timestamp("ns"))
        return day.cast(pa.time64("ns")).cast(kind)
    if pa.types.is_date(kind):
        with contextlib.suppress(pa.ArrowInvalid):  # as JSON spells the date of a timestamp: with midnight
            return _unchanged(day := _moments(texts, pa.timestamp("us")), day.cast(kind))
    return texts.cast(kind)


def _check_all(texts: pa.Array, pattern: str, fault: str) -> None:
    for text in pc.unique(texts).to_pylist():
        if text is not None and not re.search(pattern, text):
            raise pa.ArrowInvalid(f"{text!r} {fault}")


def _floats(texts: pa.Array) -> pa.Array:
    """Doubles from text; not the infinity that Arrow makes of 1e999, nor the zero of 1e-999."""
    found = texts.cast(pa.float64())
    infinite = pc.and_(pc.is_inf(found), pc.invert(pc.match_substring_regex(texts, "(?i)inf")))
    vanished = pc.and_(pc.equal(found, 0.0), pc.match_substring_regex(texts, "^[^eE]*[1-9]"))
    lost = pc.filter(texts, pc.or_(infinite, vanished))
    if len(lost):
        raise pa.ArrowInvalid(f"{lost[0].as_py()!r} does not fit into double")
    return found


def _moments(texts: pa.Array, kind: Any) -> pa.Array:
    """Timestamps from text; Arrow reads no more digits of a second than the unit has, even if all are 0."""
    for unit in (kind.unit, "us", "ns"):
        with contextlib.suppress(pa.ArrowInvalid):
            return texts.cast(pa.timestamp(unit, kind.tz)).cast(kind)
    return texts.cast(kind)
