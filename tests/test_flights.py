"""The headline, measured: `flights` on the command line, compressed, verified and read back."""

from __future__ import annotations

import json
import zipfile

import pyarrow.parquet as pq
import pytest

from data.ingest import ingest
from data.samples import sample_path
from flows.cli import run
from vae.codec.columns import pack

MOST_BYTES = 3_600_000
"""What the archive of `flights` may take; Parquet with zstd-19 takes 5.0 MB, pcodec 4.0 MB."""
NEURAL_SHARE = 0.6
"""Share of the bytes that general coders would need which must stand for columns that the network codes."""


@pytest.mark.slow
def test_flights_exact_and_small(tmp_path, capfd):
    path = tmp_path / "f.svae"
    assert run(["compress", "sample:flights", "-o", str(path), "--steps", "300", "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert path.stat().st_size == report["archive_bytes"] <= MOST_BYTES
    assert report["codes_summary"]["mean_nonzero"] >= 1
    dataset = ingest("sample:flights", tmp_path / "dataset")
    table = dataset.table()
    rivals = {column["name"]: len(pack(table[column["name"]])) for column in report["per_column"]}
    neural = sum(rivals[c["name"]] for c in report["per_column"] if c["coder"] == "neural")
    assert neural >= NEURAL_SHARE * sum(rivals.values())

    assert run(["verify", str(path), "--against", "sample:flights"]) == 0
    assert run(["decompress", str(path), "-o", str(tmp_path / "f.parquet")]) == 0
    parts = sorted(dataset.path.glob("parts-*/*.parquet"))
    assert pq.read_table(tmp_path / "f.parquet").equals(pq.read_table(parts))
    assert run(["decompress", str(path), "-o", str(tmp_path / "f.csv")]) == 0
    with zipfile.ZipFile(sample_path("flights")) as archive:
        assert (tmp_path / "f.csv").read_bytes() == archive.read("flights.csv")
