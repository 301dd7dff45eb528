"""Coders of one array of numbers, each the best of its settings; every size is of bytes that were written and decoded.

A coder takes unsigned integers or floats and gives the smallest file that it found, read back and compared; SZ3 and
zfp take float64 and a bound, and give None where they do not keep it.
"""

from __future__ import annotations

import functools
import lzma
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.forms import SLACK, Numbers

NumberCoder = Callable[[Numbers], bytes]
BoundCoder = Callable[[Numbers, float], bytes | None]

TRIED = 32_768
"""Numbers of a long column on which the ways to code it are compared first."""
MOST_WHOLE = 4
"""Ways that then code the whole column."""


@functools.lru_cache(4_096)
def squeezed_size(content: bytes) -> int:
    """Bytes of texts, tables and masks: by zstd at level 19, brotli at 11 or xz, the fewest; 0 for nothing."""
    if not content:
        return 0
    sizes = [len(content), len(lzma.compress(content, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}]))]
    for name, level in (("zstd", 19), ("brotli", 11)):
        sizes.append(len(pa.Codec(name, compression_level=level).compress(content, asbytes=True)))
    return min(sizes)


def _smallest(values: Numbers, ways: list[Callable[[Numbers], bytes | None]]) -> bytes:
    """The least that any way makes of the values; of many, by those that make least of a run amid them."""
    if len(values) > 4 * TRIED:
        begin = (len(values) - TRIED) // 2
        run = values[begin : begin + TRIED]
        sizes = [len(way(run) or run.tobytes()) for way in ways]
        ways = [ways[place] for place in np.argsort(sizes, kind="stable")[:MOST_WHOLE]]
    return min((made for way in ways if (made := way(values)) is not None), key=len)


def _must_be(restored: Numbers, values: Numbers, tool: str) -> None:
    if restored.tobytes() != values.tobytes():
        raise AssertionError(f"{tool} did not give its numbers back")


# --------------------------------------------------------------------------------------------------------- pcodec


def pcodec(values: Numbers) -> bytes:
    """Pcodec at level 12: its automatic choice, and each mode and order of differences by itself."""
    from pcodec import standalone

    wide = values.astype(np.uint16) if values.dtype.itemsize == 1 else values
    ways: list[Callable[[Numbers], bytes | None]] = [
        functools.partial(_pcodec, config=config) for config in _pcodec_settings()
    ]
    ways += [functools.partial(_pcodec_predicting, order=order) for order in PREDICTED_FROM]
    best = _smallest(wide, ways)
    restored: Any = standalone.simple_decompress(best)
    _must_be(restored, wide, "pcodec")
    return best


PREDICTED_FROM = (2, 4, 8, 16)
"""Orders of linear prediction, which the automatic choice leaves out."""
BATCH = 256
"""Numbers that pcodec looks at together; where fewer than the order are left over, linear prediction panics."""


def _pcodec_predicting(values: Numbers, order: int) -> bytes | None:
    """Linear prediction, on pages that leave enough over; None for numbers that pcodec does not predict."""
    import pcodec as tool

    count = len(values)
    if values.dtype.itemsize > 4 or count < 4 * BATCH:
        return None
    first = count // BATCH * BATCH - BATCH // 2 if 0 < count % BATCH < max(PREDICTED_FROM) else count
    pages = [size for size in (first, count - first) if size]
    deltas, modes, paging = (getattr(tool, name) for name in ("DeltaSpec", "ModeSpec", "PagingSpec"))
    config = tool.ChunkConfig(
        compression_level=12,
        mode_spec=modes.classic(),
        delta_spec=deltas.try_conv1(order),
        paging_spec=paging.exact_page_sizes(pages),
    )
    return _pcodec(values, config)


def _pcodec(values: Numbers, config: Any) -> bytes:
    from pcodec import standalone

    return standalone.simple_compress(values, config)


@functools.cache
def _pcodec_settings() -> list[Any]:
    """The automatic choice; with it fixed orders of differences and look-back; the other modes; other pages."""
    import pcodec as tool

    deltas, modes, pages = (getattr(tool, name) for name in ("DeltaSpec", "ModeSpec", "PagingSpec"))
    level = functools.partial(tool.ChunkConfig, compression_level=12)
    differences = [deltas.no_op(), deltas.try_consecutive(1), deltas.try_consecutive(2)]
    return [
        level(),
        *(level(delta_spec=one) for one in (*differences, deltas.try_lookback())),
        level(mode_spec=modes.classic()),
        level(mode_spec=modes.try_dict()),
        level(paging_spec=pages.equal_pages_up_to(1 << 16)),
        level(paging_spec=pages.equal_pages_up_to(1 << 20)),
    ]


# --------------------------------------------------------------------------------------------------------- Blosc2


def blosc(values: Numbers) -> bytes:
    """Blosc2 with zstd at level 9, over its filters."""
    import blosc2

    tool: Any = blosc2
    filters = [tool.Filter.NOFILTER, tool.Filter.BITSHUFFLE]
    filters += [tool.Filter.SHUFFLE] if values.itemsize > 1 else []
    settings = {"codec": tool.Codec.ZSTD, "clevel": 9, "typesize": values.itemsize}
    best = _smallest(
        values, [functools.partial(tool.compress2, filters=[one], **settings) for one in filters]
    )
    _must_be(np.frombuffer(tool.decompress2(best), values.dtype), values, "blosc2")
    return best


# --------------------------------------------------------------------------------------------------------- OpenZL


def openzl(values: Numbers) -> bytes:
    """OpenZL: the smallest of its graphs for columns: entropy coders and field-wise LZ of the numbers, packed, of
    their differences and of their ranks.
    """
    whole = values.view(f"u{values.dtype.itemsize}")
    best = _smallest(whole, [functools.partial(_openzl, graph=graph) for graph in _openzl_graphs()])
    _must_be(openzl_restored(best), whole, "openzl")
    return best


def openzl_automatic(values: Numbers) -> bytes:
    """What OpenZL makes of numbers when it is left to choose."""
    packed = _openzl(values, _openzl_graphs()[0])
    if packed is None:
        raise AssertionError(f"OpenZL does not take {values.dtype}")
    return packed


def openzl_restored(packed: bytes) -> Numbers:
    """The numbers again."""
    import openzl.ext as zl

    return np.asarray(zl.DCtx().decompress(packed)[0].content.as_nparray())


def _openzl(values: Numbers, graph: Callable[[Any], Any]) -> bytes | None:
    """What one graph makes; None where it is not made for such numbers."""
    import openzl.ext as zl

    compressor, context = zl.Compressor(), zl.CCtx()
    compressor.select_starting_graph(graph(compressor))
    context.ref_compressor(compressor)
    context.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
    try:
        return context.compress([zl.Input(zl.Type.Numeric, values)])
    except RuntimeError:
        return None


def _openzl_graphs() -> list[Callable[[Any], Any]]:
    import openzl.ext as zl

    graphs, nodes = zl.graphs, zl.nodes
    ends: list[Callable[[Any], Any]] = [
        graphs.Compress(),
        graphs.Entropy(),
        lambda c: nodes.ConvertNumToSerialLE()(c, graphs.Fse()(c)),
        graphs.FieldLz(compression_level=9),
        lambda c: nodes.ConvertNumToSerialLE()(c, graphs.Zstd(compression_level=19)(c)),
    ]

    def before(node: Any, end: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda c: node(c, end(c))

    packed = [before(nodes.RangePack(), end) for end in ends]
    differences = [before(nodes.DeltaInt(), before(nodes.Zigzag(), end)) for end in packed]
    alphabet = before(nodes.DeltaInt(), before(nodes.RangePack(), graphs.FieldLz(compression_level=9)))

    def tokens(end: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda c: nodes.TokenizeNumeric(sort=True)(c, alphabet(c), end(c))

    return [*ends, *packed, *differences, *(tokens(end) for end in packed)]


# --------------------------------------------------------------------------------- coders of floats within a bound


def sz3(values: Numbers, bound: float) -> bytes | None:
    """SZ3: the smallest of its predictors; None where none keeps the bound."""
    return min(_sz3(values, bound), key=len, default=None)


def _sz3(values: Numbers, bound: float) -> Iterator[bytes]:
    from pysz import sz, szAlgorithm, szConfig, szErrorBoundMode

    for algorithm in (
        szAlgorithm.INTERP_LORENZO,
        szAlgorithm.LORENZO_REG,
        szAlgorithm.INTERP,
        szAlgorithm.NOPRED,
    ):
        config = szConfig(values.shape)
        config.errorBoundMode, config.absErrorBound, config.cmprAlgo = szErrorBoundMode.ABS, bound, algorithm
        packed, _ = sz.compress(values, config)
        restored, _ = sz.decompress(packed, values.dtype, values.shape)
        if _within(restored, values, bound):
            yield bytes(packed)


def zfp(values: Numbers, bound: float) -> bytes | None:
    """Zfp within a tolerance; None where it does not keep it."""
    import zfpy

    packed: bytes = zfpy.compress_numpy(values, tolerance=bound)
    restored: Any = zfpy.decompress_numpy(packed)
    return packed if _within(restored, values, bound) else None


def _within(restored: Numbers, values: Numbers, bound: float) -> bool:
    return bool((np.abs(restored - values) <= bound * SLACK).all())
