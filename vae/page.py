"""The evaluation page: one HTML file that says what was compressed, with what guarantee, and what a code is worth.

Everything lies in the file, so it opens without a network, on a phone, and prints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.atomic import atomic_path
from data.largetable import AnyTable
from vae.codec.reader import Archive
from vae.codec.summary import ArchiveReport
from vae.curve import Curve, curve_section
from vae.examples import Examples, examples_of, examples_section
from vae.lesson import Split
from vae.sections import RIVALS, Figure, Section, Table
from vae.store import TrainedModel
from vae.stretch import Stretch, stretch_of, stretch_section
from vae.traversal import Latents, latents_section, traverse

TEMPLATE = Path(__file__).parent / "templates" / "page.html"
PLAIN = {"source", "csv"}
"""Files that nobody compressed."""
SAME_GRID = {"pcodec", "parquet_zstd19", "parquet_brotli11"}
"""Tools that were given what the archive was, where a column has a bound."""
CODERS = {"neural": "model", "derived": "follows from others", "rival": "other coders"}


def write(
    path: str | Path,
    *,
    name: str,
    report: ArchiveReport | None = None,
    numbers: Mapping[str, Any] | None = None,
    curve: Curve | None = None,
    figures: Sequence[Figure] = (),
    examples: Examples | None = None,
    stretch: Stretch | None = None,
    latents: Latents | None = None,
    verdicts: Sequence[Section] = (),
    target: str = "",
    curve_by: str = "",
    rivals_by: str = "svae compress SOURCE -o ARCHIVE --rivals",
    footer: str = "",
) -> Path:
    """Write the page of an archive, a model or both; what is not given has no section.

    numbers: as `vae.evaluate.evaluate` measures them; figures: its files, by `vae.sections.pictures`; examples, stretch
    and latents: as `seen` finds them; verdicts: what gates said; target: what was asked of the code, and what it came
    to; curve_by and rivals_by: the commands that measure the curve, and all other tools.
    """
    import jinja2

    sections = [
        *_guarantee(report),
        *_sizes(report, numbers or {}, rivals_by),
        *curve_section(curve, curve_by),
        *_columns(report, numbers or {}),
        *_code(numbers or {}, target),
        *latents_section(latents),
        *examples_section(examples),
        *stretch_section(stretch),
        *([Section("Pictures", (), (), figures)] if figures else []),
        *verdicts,
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=f"{name}: evaluation", lead=_lead(report, numbers or {}), facts=_facts(report, numbers or {}),
        sections=sections, footer=footer,
    )  # fmt: skip
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def seen(
    trained: TrainedModel,
    table: AnyTable,
    split: Split | None,
    numbers: Mapping[str, Any],
    archive: Archive | None = None,
) -> dict[str, Any]:
    """What `write` shows of a model on its table: some rows, a stretch of them, its latents."""
    return {
        "examples": examples_of(trained, table, split, archive),
        "stretch": stretch_of(trained, table, split, numbers["bits"]["columns"], archive),
        "latents": traverse(trained, table),
    }


def _lead(report: ArchiveReport | None, numbers: Mapping[str, Any]) -> str:
    if report is None:
        rows = numbers.get("rows", {})
        kind = "that it was not trained on" if rows.get("held_out") else "of its training"
        return f"A model, measured on {rows.get('evaluated', 0):,} rows {kind}." if rows else "A model."
    exact = sum(column.bound == 0 for column in report.per_column if column.kind != "one_hot")
    kept = (
        "every value is exact"
        if exact == report.columns
        else f"{exact} of {report.columns} columns are exact, the others within the bounds that were set"
    )
    model = ", the model included" if report.bytes.model else ""
    return (
        f"{report.rows:,} rows of {report.columns} columns went from {_size(report.source_bytes)} to "
        f"{_size(report.archive_bytes)}{model}; {kept}."
    )


def _facts(report: ArchiveReport | None, numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = list[tuple[str, str]]()
    if report is not None:
        codes, model = report.codes_summary, report.bytes.model and _size(report.bytes.model)
        facts += [
            (f"{report.ratio:.1f} to 1", "source over archive"),
            (
                _size(report.archive_bytes),
                f"of which {model} are the model" if model else "no model is in it",
            ),
        ]
        others = {name: size for name, size in _others(report, numbers).items() if name not in PLAIN}
        if others:
            best = min(others, key=lambda name: others[name])
            facts.append(
                (
                    f"{others[best] / report.archive_bytes:.2f} times",
                    f"the archive’s bytes, by the best other tool ({RIVALS[best]})",
                )
            )
        if codes.latents:
            facts.append((f"{codes.mean_nonzero:.1f} of {codes.latents}", "latents on, mean of all rows"))
            facts.append((f"{codes.bits_per_row:.1f}", "bits of a row's code"))
        if codes.score is not None:
            facts.append(
                (f"{codes.score:.2f}", f"score of the code alone, {codes.score_rows:,} held-out rows")
            )
    elif "bits" in numbers:
        facts.append((f"{numbers['bits']['total']:.1f}", "bits a row"))
        if "codes_only" in numbers:
            facts.append((f"{numbers['codes_only']['score']:.2f}", "score of the code alone"))
            facts.append(
                (f"{numbers['sparsity']['mean_nonzero']:.1f}", "latents on, mean of the rows measured")
            )
    if "sparsity" in numbers:
        found = numbers["sparsity"]
        dead = f"latents active, {found['dead_latents']:.0f} dead"
        facts.append((f"{found['active_units']:.0f} of {found['latents']}", dead))
    return facts


def _guarantee(report: ArchiveReport | None) -> list[Section]:
    if report is None:
        return []
    words = [
        "When the archive was written it was read back, and every value compared with the original: exact where no "
        "bound was set, else within the bound of its column. What the model could not keep is stored as it is.",
        f"Reading needs no trained network but the {_size(report.bytes.model)} in the archive, in whole numbers only, "
        "so it gives the same bytes on any machine."
        if report.bytes.model
        else "There is no model in it.",
    ]
    bounded = [column for column in report.per_column if column.bound > 0]
    tables = (
        [
            Table(
                "Columns that may differ, and by how much they do",
                ("column", "bound", "largest error"),
                [(column.name, f"{column.bound:g}", f"{column.max_error:g}") for column in bounded],
                (1, 2),
            )
        ]
        if bounded
        else []
    )
    return [Section("What is guaranteed", words, tables)]


def _others(report: ArchiveReport, numbers: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of the same table by other tools, as the archive holds them or the evaluation measured them."""
    found = {**numbers.get("size", {}), "source": report.source_bytes}
    if report.rivals:
        found |= {name: size for name, size in report.rivals.model_dump().items() if size}
    return {name: int(found[name]) for name in RIVALS if found.get(name)}


def _sizes(report: ArchiveReport | None, numbers: Mapping[str, Any], rivals_by: str) -> list[Section]:
    if report is None:
        return []
    found = _others(report, numbers)
    sizes = [(RIVALS[name], size) for name, size in found.items()]
    sizes = sorted([*sizes, ("archive, model included", report.archive_bytes)], key=lambda entry: -entry[1])
    largest = sizes[0][1] or 1
    rows = [
        (words, f"{size:,}", "" if words.startswith("archive") else f"{size / report.archive_bytes:.2f}")
        for words, size in sizes
    ]
    table = Table(
        "Bytes of the same table", ("file", "bytes", "times the archive"), rows, (1, 2),
        [round(100 * size / largest, 2) for _, size in sizes],
        [k for k, (words, _) in enumerate(sizes) if words.startswith("archive")],
    )  # fmt: skip
    shares = report.bytes.model_dump()
    parts = Table(
        "What the archive's bytes are for",
        ("part", "bytes", "share"),
        [(name, f"{size:,}", f"{size / report.archive_bytes:.1%}") for name, size in shares.items()],
        (1, 2),
    )
    words: list[str] = []
    if found.keys() & SAME_GRID and any(column.bound > 0 for column in report.per_column):
        words.append(
            "Columns with a bound were given to pcodec, and to Parquet with zstd and with brotli, on the same grid "
            "as the archive’s."
        )
    if SAME_GRID - found.keys():
        which = "the others, which take longer, are" if found.keys() & SAME_GRID else "what they need is"
        words.append(f"Not all tools were measured; {which} with: {rivals_by}")
    return [Section("Beside other tools", words, [table, parts])]


def _columns(report: ArchiveReport | None, numbers: Mapping[str, Any]) -> list[Section]:
    alone = numbers.get("codes_only", {}).get("columns", {})
    if report is not None:
        columns = sorted(report.per_column, key=lambda column: -column.bits_per_value)
        entries = [
            (c.name, c.bits_per_value, CODERS.get(c.coder, c.coder), _score(alone.get(c.name)))
            for c in columns
        ]
    elif "bits" in numbers:
        bits = numbers["bits"]["columns"]
        names = sorted(bits, key=lambda name: -bits[name])
        entries = [(name, bits[name], "model", _score(alone.get(name))) for name in names]
    else:
        return []
    largest = max((entry[1] for entry in entries), default=0.0) or 1.0
    heads = ("column", "bits a value", "coded by", "score of the code alone")
    shown = len(heads) if alone else len(heads) - 1  # an archive does not say what each column scores
    cells = [(name, f"{bits:.3f}", coder, score)[:shown] for name, bits, coder, score in entries]
    shares = [round(100 * entry[1] / largest, 2) for entry in entries]
    numeric = (1, 3) if alone else (1,)
    table = Table("Bits a value, the dearest first", heads[:shown], cells, numeric, shares)
    return [Section("Bits by column", (), [table])]


def _score(quality: Mapping[str, Any] | None) -> str:
    score = (quality or {}).get("score")
    return "" if score is None else f"{score:.2f}"


def _code(numbers: Mapping[str, Any], target: str) -> list[Section]:
    asked = [target] if target else []
    if "sparsity" not in numbers:
        return [Section("The sparse code", asked)] if asked else []
    found, score = numbers["sparsity"], numbers["codes_only"]["score"]
    words = [
        f"The model's code of a row has {found['latents']} latents, {found['mean_nonzero']:.1f} of them on in the "
        f"{numbers['rows']['evaluated']:,} rows that were measured; "
        f"{found['active_units']:.0f} vary (variance above 0.01), {found['dead_latents']:.0f} never do. By itself, no "
        f"column and no other row in sight, it scores {score:.3f}: the mean over the columns of R² for numbers, and of "
        "accuracy above the majority share for names.",
        *asked,
    ]
    if found["dead_latents"] >= found["latents"]:
        words.append(
            "The code has collapsed (posterior collapse): it is the same for every row and says nothing of one."
        )
    return [Section("The sparse code", words)]


def _size(count: int) -> str:
    """Bytes as a person says them.

    >>> _size(999), _size(1_742_551)
    ('999 bytes', '1.74 MB')
    """
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
