"""The evaluation page: what it says, that it needs nothing else, and that whatever is written into it is only text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from vae import mosaic, page
from vae.codec import archive
from vae.codec.summary import ArchiveReport
from vae.evaluate import evaluate
from vae.examples import examples_of
from vae.sections import Section, pictures
from vae.store import TrainedModel
from vae.traversal import traverse


class Read(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "wbr":
            self.words = self.words.removesuffix(" ")  # inside of a word
        elif tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f"{data} "  # cells stand side by side


@pytest.fixture(scope="module")
def report(table: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> ArchiveReport:
    path = tmp_path_factory.mktemp("page") / "a.svae"
    return archive.write(table, path, bounds={"weight": 0.5}, rivals=True, facts={"source_bytes": 99_000})


def test_an_archive_s_page_says_what_is_in_it(report: ArchiveReport, tmp_path: Path) -> None:
    read = Read(page.write(tmp_path / "a.html", name="sales", report=report))
    words = " ".join(read.words.split())
    assert "1,500 rows of 6 columns went from 99 kB to" in words
    assert "5 of 6 columns are exact, the others within the bounds that were set" in words
    for size in (report.archive_bytes, report.rivals.pcodec, report.bytes.container):  # type: ignore[union-attr]
        assert f"{size:,}" in words
    assert {column.name for column in report.per_column} <= set(re.findall(r"\w+", words))
    assert "The sparse code" not in words
    assert "score of the code alone" not in words  # which an archive does not have, of single columns
    best = min(report.rivals.pcodec, report.rivals.parquet_zstd19, report.rivals.parquet_brotli11)  # type: ignore[type-var,union-attr]
    assert f"{best / report.archive_bytes:.2f} times the archive’s bytes, by the best other tool (" in words
    assert "given to pcodec, and to Parquet with zstd and with brotli, on the same grid" in words
    assert "Not all tools" not in words


def test_a_page_says_what_measures_the_other_tools(report: ArchiveReport, tmp_path: Path) -> None:
    bare = report.model_copy(update={"rivals": None})
    words = Read(page.write(tmp_path / "a.html", name="a", report=bare)).words
    assert (
        "Not all tools were measured; what they need is with: svae compress SOURCE -o ARCHIVE --rivals"
        in words
    )
    numbers = {"size": {"parquet_snappy": 2_000, "parquet_zstd19": 1_900, "pcodec": 1_800}}
    text = page.write(
        tmp_path / "b.html", name="b", report=bare, numbers=numbers, rivals_by="svae run --rivals"
    )
    words = Read(text).words
    assert "the others, which take longer, are with: svae run --rivals" in words
    for size in numbers["size"].values():
        assert f"{size:,} {size / report.archive_bytes:.2f}" in words


def test_a_model_s_page_has_its_code_its_rows_and_its_pictures(
    trained: TrainedModel, table: pa.Table, tmp_path: Path
) -> None:
    split = np.where(np.arange(table.num_rows) % 5 == 0, 2, 0).astype(np.uint8)
    numbers, figures = evaluate(trained, table, tmp_path / "report", split=split, sizes=False)
    examples = examples_of(trained, table, split)
    assert examples is not None
    assert all(row % 5 == 0 for row in examples.rows)
    target = tmp_path / "m.html"
    latents = traverse(trained, table)
    page.write(
        target, name="m", numbers=numbers, figures=pictures(figures), examples=examples, latents=latents
    )
    read = Read(target)
    assert "What the latents say" in read.words
    found = numbers["sparsity"]
    assert f"{found['active_units']:.0f} of 6 latents active, {found['dead_latents']:.0f} dead" in (
        " ".join(read.words.split())
    )
    assert f"it scores {numbers['codes_only']['score']:.3f}" in read.words
    assert read.words.count("code alone") >= len(examples.rows)
    images = [attributes for tag, attributes in read.tags if tag == "img"]
    assert len(images) == len(figures)
    assert all(image["alt"] for image in images)


def test_a_code_that_collapsed_is_named(tmp_path: Path) -> None:
    found = {"latents": 4, "mean_nonzero": 1.0, "active_units": 0.0, "dead_latents": 4.0}
    numbers = {"sparsity": found, "codes_only": {"score": 0.0}, "rows": {"evaluated": 9}}
    words = Read(page.write(tmp_path / "a.html", name="a", numbers=numbers)).words
    assert "The code has collapsed (posterior collapse)" in words


def test_what_was_asked_of_a_code_is_said_with_measurements_and_without(tmp_path: Path) -> None:
    asked = "Its training was asked for bits=8, and came to 8.2."
    found = {"latents": 4, "mean_nonzero": 1.0, "active_units": 4.0, "dead_latents": 0.0}
    numbers = {"sparsity": found, "codes_only": {"score": 0.5}, "rows": {"evaluated": 9}}
    for measured in (None, numbers):
        words = Read(page.write(tmp_path / "a.html", name="a", numbers=measured, target=asked)).words
        assert (words.count("The sparse code"), words.count(asked)) == (1, 1)
    assert "The sparse code" not in Read(page.write(tmp_path / "a.html", name="a")).words


def test_small_pictures_shrink_on_a_phone_and_large_ones_are_moved(tmp_path: Path) -> None:
    grey = np.zeros((2, 8, 8, 1), np.uint8)
    few = mosaic.figure([grey], "two", "Two")
    many = mosaic.figure([np.repeat(grey, 40, 0)], "eighty", "Eighty")
    read = Read(page.write(tmp_path / "a.html", name="a", figures=[few, many]))
    shown = [attributes.get("class") for tag, attributes in read.tags if tag == "img"]
    assert shown == ["fits", None]


def test_it_needs_nothing_but_itself(report: ArchiveReport, tmp_path: Path) -> None:
    read = Read(page.write(tmp_path / "a.html", name="a", report=report))
    links = [
        value for _, attributes in read.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(str(link).startswith("data:") for link in links)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
    html = next(attributes for tag, attributes in read.tags if tag == "html")
    assert html["lang"] == "en"
    headers = [attributes for tag, attributes in read.tags if tag == "th"]
    assert all(header.get("scope") in ("col", "row") for header in headers)


def test_names_are_text_whatever_they_hold(report: ArchiveReport, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>"
    target = page.write(
        tmp_path / "a.html", name=evil, report=report, verdicts=[Section("Gate", [evil])], footer=evil
    )
    assert "<script" not in target.read_text()
    assert Read(target).words.count(evil) == 4  # title, heading, verdict and footer
