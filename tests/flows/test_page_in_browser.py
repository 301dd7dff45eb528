"""The evaluation page in a real browser, on a screen, on a phone and on paper: axe-core finds nothing, and nothing is
asked for.

Needs `SVAE_TEST_BROWSER`, a folder that `tests/browser.py` made; `make test-slow` sees to it.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data.gate import Finding
from data.images import image_array, image_field
from data.schema import Schema
from data.split import TEST
from flows import verdicts
from flows.results import Checked, Registered
from tests import pdf
from vae import page, pipeline
from vae.codec import archive
from vae.curve import Curve, Point
from vae.evaluate import evaluate
from vae.sections import pictures
from vae.settings import ModelSettings, TrainSettings

pytestmark = pytest.mark.slow

LISTENER = """<script>
addEventListener("message", event => {
  const found = document.createElement("pre");
  found.id = "found";
  found.textContent = event.data;
  document.body.append(found);
});
</script>"""
WATCH = """<script>
const errors = [];
addEventListener("error", event => errors.push(event.message || `${event.target.tagName} does not load`), true);
addEventListener("unhandledrejection", event => errors.push(String(event.reason)));
</script>"""
CHECK = """<script src="axe.min.js"></script><script>
addEventListener("load", async () => {
  const told = {
    inner: innerWidth,
    scroll: document.documentElement.scrollWidth,
    asked: performance.getEntriesByType("resource").map(entry => entry.name),
  };
  const { violations, passes } = await axe.run();
  const nodes = rule => rule.nodes.map(node => node.target.join(" "));
  told.violations = Object.fromEntries(violations.map(rule => [rule.id, nodes(rule)]));
  told.passes = passes.map(rule => rule.id);
  parent.postMessage(JSON.stringify({ ...told, errors }), "*");
});
</script>"""


class Words(HTMLParser):
    """Every piece of text that a page shows, and how many of its pictures are of pixels."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.told: list[str] = []
        self.images = 0
        self.hidden = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = tag in ("style", "title")
        self.images += tag == "img" and (dict(attrs)["src"] or "").startswith("data:image/png")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        if data.strip() and not self.hidden:
            self.told.append(data)


PHONE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>phone</title></head><body>
<iframe src="page.html" title="page" style="border: 0; width: 390px; height: 800px"></iframe>{listener}</body></html>"""


@pytest.fixture(scope="module")
def browser() -> Path:
    """A folder with `chromium` and `axe.min.js`."""
    place = os.environ.get("SVAE_TEST_BROWSER")
    if place is None:
        pytest.skip("SVAE_TEST_BROWSER is not set; `make test-slow` makes a browser ready and sets it")
    if not (Path(place) / "chromium").exists():
        why = Path(place) / "why-not"
        pytest.skip(f"no browser here: {why.read_text().strip() if why.exists() else 'not made'}")
    return Path(place)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every section there is: of a short series, its model and its archive."""
    folder, rows = tmp_path_factory.mktemp("page"), 4_000
    random = np.random.default_rng(0)
    level = np.cumsum(random.integers(-3, 4, rows))
    table = pa.table({
        "level": pa.array(level, mask=random.random(rows) < 0.02),
        "a_name_of_a_column_that_goes_on_and_on_without_a_space_or_an_end": level // 7 + random.integers(0, 2, rows),
        "flow <&>": np.round(0.5 * level + random.normal(size=rows), 1),
        "kind": np.array(["north", "south & east", "<west>"])[(level // 9) % 3],
    })  # fmt: skip
    split = np.where(np.arange(rows) // 128 % 5 == 2, TEST, 0).astype(np.uint8)
    model = pipeline.fit(
        table, Schema.from_arrow(table.schema), bounds={"flow <&>": 0.5}, split=split,
        model=ModelSettings(latents=6, width=8, encoder_width=32, encoder_depth=1),
        training=TrainSettings(steps=150, batch_rows=256, threads=1),
    )  # fmt: skip
    path = folder / "series.svae"
    report = pipeline.compress(table, path, model=model, rivals=True)
    numbers, figures = evaluate(model, table, folder / "report", split=split, archive_path=path)
    bits = {"archive": 30.0, "pcodec": 40.0, "parquet_zstd19": 60.0, "parquet_brotli11": 55.0}
    points = [
        Point(share, {name: size / (1 + 50 * share) for name, size in bits.items()})
        for share in (0.0, 0.01, 0.1)
    ]
    with archive.open(path) as opened:
        seen = page.seen(model, table, split, numbers, opened)
    limit = "at most 5.00% (0.00% before, max_null_rise 0.05)"
    found = (
        Finding("level", "null share", "2.00%", limit, True),
        Finding("kind", "type", "added", "any", True),
    )
    checked = Checked(bounds={}, findings=found, against="models:/series/1")
    version = Registered(name="series", version=2, promoted=True, reasons=("It is better",), is_new=True)
    assert seen["stretch"] is not None
    return page.write(
        folder / "series.html", name="series", report=report, numbers=numbers, figures=pictures(figures),
        curve=Curve(points, Point(0.005, {"archive": 25.0})), verdicts=verdicts.verdicts(checked, version),
        footer="Of a test.", **seen,
    )  # fmt: skip


@pytest.fixture(scope="module")
def written_of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of images, their model and their archive, as a run writes it without a curve."""
    folder, images = tmp_path_factory.mktemp("images"), 400
    random = np.random.default_rng(0)
    # blots of light at some place, and a little noise
    place = random.uniform(3, 13, (images, 2, 1, 1))
    down, across = np.mgrid[:16, :16][:, None] - place.swapaxes(0, 1)
    blots = 220 * np.exp(-(down**2 + across**2) / random.uniform(4, 20, (images, 1, 1)))
    pixels = (blots + random.integers(0, 9, blots.shape)).astype(np.uint8)[..., None]
    columns = pa.schema([image_field("image", (16, 16, 1)), pa.field("label", pa.int64())])
    table = pa.table([image_array(pixels), pa.array(np.arange(images) % 10)], schema=columns)
    split = np.where(np.arange(images) % 5 == 2, TEST, 0).astype(np.uint8)
    model = pipeline.fit(
        table, Schema.from_arrow(table.schema), split=split, model=ModelSettings(latents=6, width=8),
        training=TrainSettings(steps=60, batch_rows=64, threads=1),
    )  # fmt: skip
    path = folder / "images.svae"
    report = pipeline.compress(table, path, model=model)
    numbers, figures = evaluate(model, table, folder / "report", split=split, archive_path=path)
    with archive.open(path) as opened:
        seen = page.seen(model, table, split, numbers, opened)
    rows = Finding("", "rows", "400", "at least 1 (min_rows)", True)
    version = Registered(name="images", version=1, promoted=True, reasons=("no champion yet",), is_new=True)
    return page.write(
        folder / "images.html", name="images", report=report, numbers=numbers, figures=pictures(figures),
        verdicts=verdicts.verdicts(Checked(bounds={}, findings=(rows,), against=""), version),
        curve_by="svae run --curve", footer="Of a test.", **seen,
    )  # fmt: skip


def command_of(browser: Path, folder: Path, *options: str) -> list[str]:
    """Chromium without a window or a network, with a profile of its own."""
    return [
        str(browser / "chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
        f"--user-data-dir={folder / 'profile'}", *options,
    ]  # fmt: skip


def opened(browser: Path, folder: Path, name: str, width: int) -> dict[str, Any]:
    """What the page in `folder` says of itself in the browser; nothing may be on its console."""
    command = command_of(
        browser, folder, f"--window-size={width},900", "--virtual-time-budget=60000", "--dump-dom",
        (folder / name).as_uri(),
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2_000:]
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("of", ["written", "written_of_images"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_accessible_fits_and_asks_for_nothing(
    browser: Path, tmp_path: Path, width: int, of: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(of)
    text = path.read_text().replace("<head>", f"<head>{WATCH}", 1)
    listener = LISTENER if width == 1280 else ""
    (tmp_path / "page.html").write_text(text.replace("</body>", f"{listener}{CHECK}</body>"))
    # no window is as narrow as a phone, but a frame is
    (tmp_path / "phone.html").write_text(PHONE.format(listener=LISTENER))
    (tmp_path / "axe.min.js").write_bytes((browser / "axe.min.js").read_bytes())
    found = opened(browser, tmp_path, "page.html" if width == 1280 else "phone.html", 1280)
    assert found["violations"] == {}
    assert {"color-contrast", "image-alt", "html-has-lang"} <= set(found["passes"])
    assert found["errors"] == []
    own = (tmp_path / "axe.min.js").as_uri()
    assert [name for name in found["asked"] if name != own and not name.startswith("data:")] == []
    assert found["inner"] == width
    assert found["scroll"] <= width


@pytest.mark.parametrize("of", ["written", "written_of_images"])
def test_it_prints_whole(browser: Path, tmp_path: Path, of: str, request: pytest.FixtureRequest) -> None:
    path: Path = request.getfixturevalue(of)
    paper = tmp_path / "page.pdf"
    options = "--no-pdf-header-footer", f"--print-to-pdf={paper}", path.as_uri()
    done = subprocess.run(
        command_of(browser, tmp_path, *options), capture_output=True, text=True, timeout=300
    )
    assert paper.exists(), done.stderr[-2_000:]
    pages = pdf.pages(paper.read_bytes())
    assert 3 <= len(pages) <= 16
    assert all(page.strip() for page in pages)  # no sheet is empty
    # lines are broken anywhere, and some of the words too
    printed = "".join("".join(pages).split())
    read = Words(path)
    assert len(read.told) > 100
    printed = unicodedata.normalize("NFKC", printed)  # ligatures
    assert [
        words for words in read.told if unicodedata.normalize("NFKC", "".join(words.split())) not in printed
    ] == []
    assert paper.read_bytes().count(b"/Subtype /Image") >= read.images
