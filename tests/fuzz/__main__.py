"""The fuzzer: `python -m tests.fuzz CORPUS --seconds 1800`, with atheris (the extra `fuzz`).

Coverage guides it through the uncompiled codec. With `--compiled` the loops are compiled with numba's bounds checks,
and only what calls them guides it. Inputs are parts (`tests.fuzz.parts`); each mutation changes one of them, so that it
gets past the checksums. What it finds it leaves as `crash-*`, `timeout-*` or `oom-*` in the current folder; once it
is mended, keep it as a fixture and read it in `tests/codec/test_fuzz.py`.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

SECONDS, MEGABYTES = 5, 1024
"""What a refusal may take."""
MOST_BYTES = 1 << 16
JITTED = [
    "vae.planning",
    *(
        f"vae.codec.{name}"
        for name in (
            "counts",
            "entropy",
            "frontend",
            "intervals",
            "kernel",
            "mixing",
            "pixels",
            "shades",
            "surroundings",
            "vectors",
        )
    ),
]
"""Modules that numba compiles, which cannot compile what is instrumented."""


def main() -> None:
    """Fuzz until the time is up or something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--compiled", action="store_true")
    asked = parser.parse_args()
    os.environ["NUMBA_BOUNDSCHECK" if asked.compiled else "NUMBA_DISABLE_JIT"] = "1"
    if asked.compiled:
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # code that is cached has no checks

    import atheris

    with atheris.instrument_imports(include=["data", "vae"], exclude=JITTED if asked.compiled else []):
        from tests.fuzz.parts import Parts, flat, unflat
        from tests.fuzz.seeds import seeds
        from tests.fuzz.target import read

    asked.corpus.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp()) / "t.svae"
    for name, parts in seeds(path.parent).items():
        (asked.corpus / f"seed-{name}").write_bytes(flat(parts))
        read(parts, path)  # compiled here, not within what one input may take

    def one(data: bytes) -> None:
        parts = unflat(data)
        if parts is not None:
            read(parts, path)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        parts = unflat(data)
        if parts is None:
            return bytes(atheris.Mutate(data, most))
        dice = random.Random(seed)
        fields: list[Any] = list(parts)
        where = dice.choices(range(7), (1, 6, 1, 1, 4, 4, 6))[0]
        if where < 5:
            fields[where] = bytes(atheris.Mutate(fields[where], len(fields[where]) + 64))
        elif fields[where]:
            pieces = list(fields[where])
            at = dice.randrange(len(pieces))
            pieces[at] = bytes(atheris.Mutate(pieces[at], len(pieces[at]) + 64))
            if dice.random() < 0.1:
                pieces[at] = pieces[dice.randrange(len(pieces))]
            fields[where] = tuple(pieces)
        made = flat(Parts(*fields))
        return made if len(made) <= most else data

    options = [
        f"-max_total_time={asked.seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}",
        f"-max_len={MOST_BYTES}", "-print_final_stats=1", "-len_control=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(asked.corpus)], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
