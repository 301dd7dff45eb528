"""A table's columns in the forms in which a rival may be handed them; which of them is smallest, each rival finds out.

A bounded column is handed over on the grid of its bound, with its smallest value on a point, at the edge of a bin, or
where this project's own grid begins, whichever turns out smallest; an exact one as it is, or as integers (decimals,
whole steps, HHMM times, ranks), what turns them back counted. What is not on a grid (NaN, infinities) is left out: the
rivals get it for nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as _pc
from pcodec import ChunkConfig, standalone

from data.gridfit import fit_column

pc: Any = _pc
Bounds = Mapping[str, float]
"""Absolute largest error by column; absent is exact."""
Numbers = np.ndarray[Any, Any]
MOST_DECIMALS = 9
MOST_RANKS = 65_536
SLACK = 1 + 1e-9
"""What a rival's float arithmetic may exceed a bound by."""


class Form(NamedTuple):
    """One way to hand a column's values over, nulls left out."""

    numbers: Numbers
    """Unsigned integers, as narrow as they go, or the floats themselves."""
    side: bytes
    """What turns them back into the values: a table, a dictionary; the few numbers of a grid are not counted."""
    restore: Callable[[Numbers], Any]
    """The values again, a NumPy array or a list of texts."""


class Column(NamedTuple):
    """A column, its nulls apart."""

    name: str
    values: pa.Array
    """Without nulls (and, where there is a bound, without NaN and infinities), in their own type."""
    valid: Numbers | None
    """False where there is a null; None if there is none."""
    bound: float
    forms: list[Form]


def columns_of(table: pa.Table, bounds: Bounds) -> Iterator[Column]:
    """Every column in all its forms."""
    for name in table.column_names:
        yield column_of(name, table[name], bounds.get(name, 0.0))


def column_of(name: str, given: pa.ChunkedArray, bound: float) -> Column:
    """One column in all its forms."""
    array = given.combine_chunks()
    if bound > 0 and pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_finite(array), array, None)
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    values = array.drop_null()
    if len(values) == 0:
        forms = [Form(np.zeros(0, np.uint8), b"", lambda numbers: numbers)]
    elif pa.types.is_string(array.type):
        forms = list(_texts(values))
    else:
        numbers = values.cast(_stored(values.type)).to_numpy(zero_copy_only=False)
        forms = list(_bounded(numbers, bound) if bound > 0 else _exact(numbers))
    return Column(name, values, valid, bound, forms)


def _stored(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_boolean(kind):
        return pa.uint8()
    return pa.int64() if pa.types.is_temporal(kind) else kind


# ---------------------------------------------------------------------------------------------------------- texts


def _texts(values: pa.Array) -> Iterator[Form]:
    """Indices into a dictionary: in order of appearance, of the alphabet, of frequency."""
    coded = values.dictionary_encode()
    indices, words = coded.indices.to_numpy(), coded.dictionary.to_pylist()
    orders = (
        np.arange(len(words)),
        np.array(sorted(range(len(words)), key=words.__getitem__)),
        np.argsort(-np.bincount(indices), kind="stable"),
    )
    for order in orders:
        place = np.empty(len(words), np.int64)
        place[order] = np.arange(len(words))
        listed = [words[at] for at in order]
        yield Form(
            narrow(place[indices]),
            "\n".join(listed).encode(),
            lambda numbers, listed=listed: [listed[at] for at in numbers],
        )


# -------------------------------------------------------------------------------------------------------- numbers


def narrow(values: Numbers) -> Numbers:
    """Integers from 0 on in the narrowest unsigned type.

    >>> narrow(np.array([0, 300])).dtype
    dtype('uint16')
    """
    top = int(values.max())
    width = "u1" if top < 1 << 8 else "u2" if top < 1 << 16 else "u4" if top < 1 << 32 else "u8"
    return np.ascontiguousarray(values.astype(width))


def _bounded(numbers: Numbers, bound: float) -> Iterator[Form]:
    """The grid of a bound, in three of its phases; the exact forms too where that of integers allows no error."""
    if numbers.dtype.kind == "f":
        low, step = float(numbers.min()), 2 * bound
        away = (numbers.astype(np.float64) - low) / step
        last = max(0, int(np.ceil(away.max())) - 1)
        nearest, binned = np.rint(away).astype(np.int64), np.minimum(np.floor(away).astype(np.int64), last)
        yield Form(narrow(nearest), b"", lambda k: low + step * k.astype(np.float64))
        yield Form(narrow(binned), b"", lambda k: low + bound + step * k.astype(np.float64))
        yield from _own_grid(numbers, bound)
        return
    if bound < 1:
        yield from _exact(numbers)
        return
    low, half = int(numbers.min()), int(min(bound, 2**31))
    step = 2 * half + 1
    away = numbers.astype(np.int64) - low
    yield Form(narrow((away + half) // step), b"", lambda k: low + step * k.astype(np.int64))
    yield Form(narrow(away // step), b"", lambda k: low + half + step * k.astype(np.int64))
    yield from _own_grid(numbers, bound)


def _own_grid(numbers: Numbers, bound: float) -> Iterator[Form]:
    """The grid that this project lays over the column, unless there are values that it has to keep apart."""
    values = pa.array(numbers)
    grid = fit_column("", pa.chunked_array([values]), bound)
    if grid.kind == "number":
        coded = grid.encode(values)
        if not coded.state.any():
            yield Form(
                narrow(coded.symbols - grid.low),
                b"",
                lambda k: grid.decode(k.astype(np.int64) + grid.low, *coded[1:]).to_numpy(
                    zero_copy_only=False
                ),
            )


def _exact(numbers: Numbers) -> Iterator[Form]:
    """Themselves, as integers, as ranks."""
    if numbers.dtype.kind == "f":
        yield Form(np.ascontiguousarray(numbers), b"", lambda values: values)
        yield from _decimals(numbers)
    else:
        yield from _integers(numbers)
    yield from _ranks(numbers)


def _integers(numbers: Numbers) -> Iterator[Form]:
    low = int(numbers.min())
    away = numbers.astype(np.int64) - low
    step = int(np.gcd.reduce(away)) or 1
    yield Form(narrow(away), b"", lambda k: k.astype(np.int64) + low)
    if step > 1:
        yield Form(narrow(away // step), b"", lambda k: k.astype(np.int64) * step + low)
    if low >= 0 and 1200 <= int(numbers.max()) <= 2400 and (numbers % 100 < 60).all():
        minutes = numbers // 100 * 60 + numbers % 100
        yield Form(narrow(minutes), b"", lambda k: k.astype(np.int64) // 60 * 100 + k % 60)


def _decimals(numbers: Numbers) -> Iterator[Form]:
    """Whole numbers, of as few decimals as give every value back."""
    for digits in range(MOST_DECIMALS + 1):
        unit = float(10**digits)
        scaled = np.rint(numbers.astype(np.float64) * unit)
        if not (np.abs(scaled) < 2**52).all():
            return
        low = int(scaled.min())
        whole = narrow(scaled.astype(np.int64) - low)
        restore = functools.partial(_from_decimals, low=low, unit=unit, kind=numbers.dtype)
        if restore(whole).tobytes() == numbers.tobytes():
            yield Form(whole, b"", restore)
            return


def _from_decimals(whole: Numbers, *, low: int, unit: float, kind: np.dtype[Any]) -> Numbers:
    return ((whole.astype(np.int64) + low) / unit).astype(kind)


def _ranks(numbers: Numbers) -> Iterator[Form]:
    """Places in the sorted distinct values, these counted."""
    if (
        numbers.dtype.kind == "f"
        and not (np.isfinite(numbers) & ~((numbers == 0) & np.signbit(numbers))).all()
    ):
        return
    table, place = np.unique(numbers, return_inverse=True)
    if len(table) > min(MOST_RANKS, max(16, len(numbers) // 8)):
        return
    yield Form(narrow(place), _packed(table), lambda k: table[k])


def _packed(table: Numbers) -> bytes:
    """A sorted table, as it is or by pcodec as whole numbers, whichever is less."""
    whole = next(_decimals(table) if table.dtype.kind == "f" else _integers(table), None)
    plain = table.tobytes()
    if whole is None:
        return plain
    wide = whole.numbers.astype(np.uint16) if whole.numbers.itemsize == 1 else whole.numbers
    return min(plain, standalone.simple_compress(wide, ChunkConfig(compression_level=12)), key=len)
