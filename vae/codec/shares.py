"""What the parts of an archive take, counted for its report."""

from __future__ import annotations

from vae.codec.parts import Parts
from vae.codec.summary import ArchiveReport, ByteShares, CodesSummary, ColumnReport


def report_of(parts: Parts) -> ArchiveReport:
    """The report that was stored, with the sizes of what is in the file."""
    header, stored = parts.header, parts.stored
    entries = parts.container
    sizes = list(parts.table_sizes)
    codes = 0
    for group in range(header.groups):
        for place in range(len(header.columns)):
            sizes[place] += entries.stream(header.stream_of_column(group, place)).length
        for block in range(header.block_count(group) if header.model else 0):
            first = header.stream_of_block(group, block)
            codes += entries.stream(first).length
            for k, place in enumerate(header.coded):
                sizes[place] += entries.stream(first + 1 + k).length
    bits = [8 * size / max(1, header.rows) for size in sizes]
    per_column = tuple(
        ColumnReport(name=name, coder=coding.coder, bytes=size, bits_per_value=b, **column.model_dump())
        for name, coding, column, size, b in zip(
            parts.names, header.columns, stored.per_column, sizes, bits, strict=True
        )
    )
    shares = ByteShares(
        model=entries.model.length, codes=codes, columns=sum(sizes),
        container=entries.size - entries.model.length - codes - sum(sizes),
    )  # fmt: skip
    summary = CodesSummary(
        family=stored.family, latents=header.latents, mean_nonzero=stored.mean_nonzero,
        bits_per_row=8 * codes / max(1, header.rows), score=stored.code_score, score_rows=stored.code_score_rows,
    )  # fmt: skip
    return ArchiveReport(
        rows=header.rows, columns=len(entries.names), source_bytes=stored.source_bytes,
        stored_bytes=stored.stored_bytes, archive_bytes=entries.size, ratio=stored.source_bytes / entries.size,
        bytes=shares, rivals=stored.rivals, per_column=per_column, codes_summary=summary, seconds=stored.seconds,
        model_sha256=header.model.sha256 if header.model else None,
    )  # fmt: skip
