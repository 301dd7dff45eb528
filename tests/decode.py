"""Reads archives and prints, as JSON, digests of all that they hold, for comparison with other machines' digests.

    python tests/decode.py THREADS whole|parts|some ARCHIVE...

`some` are the rows from a third to the half, which are enough of an archive where a reader is slow.

Run by `tests/codec/test_anywhere.py` under other processors, libraries and interpreters: it knows the core alone.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import platform
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from vae.codec import archive
from vae.codec.archive import Archive
from vae.codec.jit import COMPILED


def digest(table: pa.Table) -> str:
    """Of its Arrow stream, as one batch: values, nulls, schema and metadata."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def in_parts(opened: Archive) -> tuple[pa.Table, np.ndarray]:
    """All of it by parts: rows in uneven runs, in each the first columns apart from the others."""
    cuts = [0, 1, opened.rows // 3, opened.rows // 3 + 2, opened.rows]
    runs = list(itertools.pairwise(cuts))
    names, half = opened.names, len(opened.names) // 2
    tables: list[pa.Table] = []
    for run in runs:
        left, right = opened.read(names[:half], run), opened.read(names[half:], run)
        tables.append(pa.table([*left.columns, *right.columns], schema=opened.schema))
    return pa.concat_tables(tables), np.concatenate([opened.dense_codes(run) for run in runs])


def main(threads: int, how: str, paths: list[Path]) -> None:
    """Print what is found."""
    digests: dict[str, list[str]] = {}
    for path in paths:
        with archive.open(path, threads=threads) as opened:
            if how == "parts":
                table, codes = in_parts(opened)
            else:
                run = (opened.rows // 3, opened.rows // 2) if how == "some" else None
                table, codes = opened.read(rows=run), opened.dense_codes(run)
                assert len(table) > 0
        digests[path.name] = [digest(table), hashlib.sha256(codes.tobytes()).hexdigest()]
    floats = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    product = hashlib.sha256((floats @ floats).tobytes()).hexdigest()
    where = {"machine": platform.machine(), "compiled": COMPILED, "numba": "numba" in sys.modules}
    print(json.dumps({**where, "digests": digests, "float_product": product}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], [Path(name) for name in sys.argv[3:]])
