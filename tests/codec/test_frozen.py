"""Archives of each version of the format, written once and kept: they read the same for ever, on every machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data.output import write_table
from data.schema import Schema
from vae.codec import archive
from vae.codec.container import VERSION

FIXTURES = Path(__file__).parents[1] / "fixtures"
FROZEN = {
    # rows 150,001 to 152,000 of the flights, air_time within 2 minutes, all else exact: columns by the network with
    # every kind of head, derived ones and one by a rival coder; 8 latents
    "flights-2000-v1.svae": "b56fb0b4dc94359cbf39a2b308f04f37061f64ca87bd5fe6d6837152b503158a",
    # 2,000 made rows: a height, a one-hot group of integers with rows that break it and one of booleans, and noise
    # within 0.5; the groups by the network or as a function of each other; 6 latents
    "one-hot-2000-v2.svae": "0e056afb3a823a1b61363320d514c7635d869901b4b8cc3cb98340701d135280",
    # 2,000 made rows, one an hour, in blocks of 750: a sky that stays for a day or so (a one-hot group of booleans),
    # power by hour and sky, temperature within 0.2, a level that walks, noise; all by the network, whose codes see the
    # row above; 6 latents, of which most stay what they were and one is always 0
    "hourly-2000-v3.svae": "afc1132755c906e400bce043d2634fcdd9fc1232a2977b68578cbe18c24d7979",
    # the same rows, with a share in 311ths to four decimals and one of 100 names; a prior of one more layer, numbers
    # that show their history, a softmax over the names, ranks that are fractions; 6 latents
    "hourly-2000-v4.svae": "73aaeed1718b597c699475ea506bef16b1f3136376fdde63cdab1576edf953dd",
    # what that holds, all by the network, to whose second layers what is known before goes past the shared sum; shares
    # of components to 24 bits
    "hourly-2000-v5.svae": "5d03b3b793e9af504481bd05f0c1e777a9548343cae9f82e99b24221d09bb43e",
    # 2,000 made rows, one an hour: averaged readings of two thermometers and of the sun, whose parts make its whole;
    # floats that are the sum of two others; names that come back (contexts beside `direct`); 6 latents
    "readings-2000-v6.svae": "a40097c5b8602eac56c041e5bf553445de24a184efe3fb49fcd7d742a412489e",
    # 60 made images of 9 x 8 pixels in colour within 2, in blocks of 16 and groups of 32: a disc, a square or stripes
    # on a ground that changes its colour, with noise; five are null; labels by a rival coder; 4 latents, one always 0
    "images-60-v7.svae": "060e665d145ef25408ed2f1191abaa28ecfa3292ccc83f94cc8636e68a29ff41",
    # 60 made grey images of 12 x 11 pixels, in blocks of 25: a disc each, of six shades of its own, with noise at its
    # edge; the last four bits beside counts of the shades; three are null; labels by a rival coder; 4 latents
    "images-60-v8.svae": "5e4a30748057da210733374739bcd07f1c763553d7291f061757871594fb5698",
    # 2,000 made rows: every tenth has a line of Python's own documentation, every hundredth an address with a number of
    # its own, all others null, in a mixed text; a level that walks; no model
    "texts-2000-v9.svae": "42691f42caf2bc995de4c1429902e2dccaceb71b20d2e3d2ee2c75124834ec64",
}
"""SHA-256 of each as CSV. A missing archive fails: it is never made anew."""

CODES = {
    "flights-2000-v1.svae": "8b4e3692c9831ae2c3d9292862e3015f31e2024093bc94e44493edf60e68aab3",
    "one-hot-2000-v2.svae": "612c8ecfc26b9412f295d402fab254a839646239cea81a8aa38f74f27421128f",
    "hourly-2000-v3.svae": "c6c2fc7fb5feaa2ada49070bab0680512ea450514d0d48e97c155411e1b39b0a",
    "hourly-2000-v4.svae": "6b72c92c937f0685434a08b43621ccafda236d49af80f46e0feb1f673858c76e",
    "hourly-2000-v5.svae": "0479e7fc48f29c260f01a573d2844742b6f4331f31972965035bb079121e07e1",
    "readings-2000-v6.svae": "873cce0e9da00e41ea93dbf53e2b7a63a396d54c309d67d61a727db747d6c506",
    "images-60-v7.svae": "a5d9c5a54b6da2fd402666725b43f151d0ba578f984954891c8c88991b7cd427",
    "images-60-v8.svae": "9711edce97dbabba6a254e9494a5c23bd943fa29c0e6c0e830d0263856f901c9",
    "texts-2000-v9.svae": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
}
"""SHA-256 of the sparse codes of each, row by row."""

WHOLE, MAYBE = "int64 integer int", "int64? integer int NA"
HOURLY = {
    "time": "timestamp[s]?",
    "power": "double?",
    "temperature": "double?",
    "level": "int64?",
    "on": "bool?",
    "noise": "int64?",
    **{f"sky_{name}": "bool?" for name in ("clear", "cloud", "fog", "rain")},
}
SCHEMAS = {
    "flights-2000-v1.svae": {
        "year": WHOLE,
        "month": WHOLE,
        "day": WHOLE,
        "dep_time": MAYBE,
        "sched_dep_time": WHOLE,
        "dep_delay": MAYBE,
        "arr_time": MAYBE,
        "sched_arr_time": WHOLE,
        "arr_delay": MAYBE,
        "carrier": "string categorical",
        "flight": WHOLE,
        "tailnum": "string text",
        "origin": "string categorical",
        "dest": "string categorical",
        "air_time": MAYBE,
        "distance": WHOLE,
        "hour": WHOLE,
        "minute": WHOLE,
        "time_hour": "timestamp[s,tz=UTC] timestamp %Y-%m-%dT%H:%M:%SZ",
    },
    "one-hot-2000-v2.svae": {
        "height": "int64?",
        **{f"soil_{k}": "int8?" for k in range(9)},
        **{f"area_{k}": "bool?" for k in range(3)},
        "noise": "double?",
    },
    "hourly-2000-v3.svae": HOURLY,
    **dict.fromkeys(
        ("hourly-2000-v4.svae", "hourly-2000-v5.svae"),
        HOURLY | {"time": "timestamp[ms]?", "share": "double?", "city": "string?"},
    ),
    "readings-2000-v6.svae": {
        "time": "timestamp[s,tz=UTC]?",
        **dict.fromkeys(("inside", "outside", "total", "beam", "diffuse", "pump", "fan", "both"), "double?"),
        "station": "string?",
        "level": "int64?",
    },
    "images-60-v7.svae": {
        "image": "fixed_size_list<item:uint8>[216]? ('svae.shape', '9x8x3')",
        "label": "string?",
    },
    "images-60-v8.svae": {
        "image": "fixed_size_list<item:uint8>[132]? ('svae.shape', '12x11x1')",
        "label": "string?",
    },
    "texts-2000-v9.svae": {"text": "string?", "level": "int64?"},
}
"""Each column's type (`?` if it may be null), kind, format of its text and the text of its nulls."""

DIALECTS: dict[str, dict[str, Any] | None] = {
    "flights-2000-v1.svae": {
        "delimiter": ",",
        "header": True,
        "line_end": "\n",
        "final_line_end": True,
        "quoting": "minimal",
        "quoted_empty": False,
        "bom": False,
    },
    "one-hot-2000-v2.svae": None,
    "hourly-2000-v3.svae": None,
    "hourly-2000-v4.svae": None,
    "hourly-2000-v5.svae": None,
    "readings-2000-v6.svae": None,
    "images-60-v7.svae": None,
    "images-60-v8.svae": None,
    "texts-2000-v9.svae": None,
}
"""How the source was written, if it was CSV."""

LATENTS = {
    "flights-2000-v1.svae": 8,
    "one-hot-2000-v2.svae": 6,
    "hourly-2000-v3.svae": 6,
    "hourly-2000-v4.svae": 6,
    "hourly-2000-v5.svae": 6,
    "readings-2000-v6.svae": 6,
    "images-60-v7.svae": 4,
    "images-60-v8.svae": 4,
    "texts-2000-v9.svae": 0,
}
CODERS = {
    "flights-2000-v1.svae": {"neural", "derived", "rival"},
    "one-hot-2000-v2.svae": {"neural", "derived"},
    "hourly-2000-v3.svae": {"neural", "derived"},
    "hourly-2000-v4.svae": {"neural", "derived"},
    "hourly-2000-v5.svae": {"neural", "derived"},
    "readings-2000-v6.svae": {"neural", "rival"},
    "images-60-v7.svae": {"neural", "rival"},
    "images-60-v8.svae": {"neural", "rival"},
    "texts-2000-v9.svae": {"rival"},
}


def described(field: pa.Field[Any]) -> str:
    """A field in the words of `SCHEMAS`; metadata that it has no word for follow."""
    notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    known = [notes.pop(f"svae.{key}", "") for key in ("kind", "format", "null")]
    kind = str(field.type).replace(" ", "") + "?" * field.nullable
    return " ".join(filter(None, [kind, *known, *map(str, notes.items())]))


def test_every_frozen_archive_is_known() -> None:
    assert sorted(path.name for path in FIXTURES.glob("*.svae")) == sorted(FROZEN)
    assert {(FIXTURES / name).read_bytes()[8] for name in FROZEN} == set(range(1, VERSION + 1))
    for name in FROZEN:
        assert name.endswith(f"-v{(FIXTURES / name).read_bytes()[8]}.svae")


@pytest.mark.jit
@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_archive_reads_as_ever(name: str, tmp_path: Path) -> None:
    with archive.open(FIXTURES / name, threads=1) as opened:
        table = opened.read()
        codes = opened.dense_codes()
    assert {field.name: described(field) for field in table.schema} == SCHEMAS[name]
    assert table.schema.names == list(SCHEMAS[name])
    metadata = {key: json.loads(value) for key, value in (table.schema.metadata or {}).items()}
    dialect = DIALECTS[name]
    assert metadata == ({} if dialect is None else {b"svae.csv": dialect})
    assert codes.dtype == "int8"
    assert hashlib.sha256(codes.tobytes()).hexdigest() == CODES[name]
    write_table(table, Schema.from_arrow(table.schema), tmp_path / "t.csv")
    assert hashlib.sha256((tmp_path / "t.csv").read_bytes()).hexdigest() == FROZEN[name]


@pytest.mark.parametrize("name", FROZEN)
def test_its_parts_are_slices_of_the_whole(name: str) -> None:
    with archive.open(FIXTURES / name, threads=2) as opened:
        table = opened.read()
        assert {c.coder for c in opened.report().per_column} == CODERS[name]
        rows = int(name.split("-")[-2])
        assert opened.dense_codes().shape == (rows, LATENTS[name])
        start, stop = rows * 7 // 20, rows * 13 // 20
        for column in table.column_names:
            part = opened.read([column], (start, stop))
            assert part.equals(table.select([column]).slice(start, stop - start))
