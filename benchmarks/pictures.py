"""What general coders make of the images that `benchmarks.pixels` codes: bits a pixel of the very same images.

brotli and xz get the pixels' bytes, image after image. Coders of pictures get one grey picture, a mosaic: the images in
their order, side by side without gaps, so many a row that it is nearly square. Each is asked for the least that it
makes, on one thread, and gives everything back, or this fails.
"""

from __future__ import annotations

import hashlib
import io
import lzma
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.cells import Benchmark, Case, Facts
from benchmarks.pixels import SETS, TITLES, TRAIN
from data.sources import open_source

Bytes = NDArray[np.uint8]
SIDE = 28
TOOLS = ("imagecodecs", "pillow", "pyarrow")


class Part(NamedTuple):
    """Images of a set."""

    first: int
    """All from this one on."""
    across: int
    """Images in a row of their mosaic."""
    told: str


PARTS = {"test": Part(TRAIN, 100, "the 10,000 test images"), "all": Part(0, 250, "all 70,000 images")}


class Coder(NamedTuple):
    """Bytes of an array, and the array again, of whatever shape."""

    write: Callable[[Bytes], bytes]
    read: Callable[[bytes, int], Any]
    """Gets the number of its values."""


def mosaic(images: Bytes, across: int) -> Bytes:
    """Images (count, height, width) as one picture; ValueError if the last row would not be full.

    >>> mosaic(np.arange(8, dtype=np.uint8).reshape(4, 1, 2), across=2).tolist()
    [[0, 1, 2, 3], [4, 5, 6, 7]]
    """
    _, height, width = images.shape
    rows = images.reshape(-1, across, height, width).swapaxes(1, 2)
    return np.ascontiguousarray(rows.reshape(-1, across * width))


def bits(coder: Coder, values: Bytes) -> float:
    """Bits a value; ValueError if it does not give them back."""
    written = coder.write(values)
    if not np.array_equal(np.asarray(coder.read(written, values.size)).ravel(), values.ravel()):
        raise ValueError("what was read is not what was written")
    return 8 * len(written) / values.size


def coders_of_bytes() -> dict[str, Coder]:
    """Coders that know nothing of pictures, by name."""
    brotli = pa.Codec("brotli", compression_level=11)
    return {
        "brotli-11": Coder(
            lambda values: brotli.compress(values.tobytes(), asbytes=True),
            lambda written, size: _array(brotli.decompress(written, decompressed_size=size, asbytes=True)),
        ),
        "xz -9e": Coder(
            lambda values: lzma.compress(values.tobytes(), preset=9 | lzma.PRESET_EXTREME),
            lambda written, _: _array(lzma.decompress(written)),
        ),
    }


def coders_of_pictures() -> dict[str, Coder]:
    """Coders of a grey picture, (height, width), by name."""
    import imagecodecs
    from PIL import Image

    def png(picture: Bytes) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(
            file, "png", optimize=True
        )  # less than libpng at level 9, by any filter
        return file.getvalue()

    def webp(picture: Bytes) -> bytes:
        three = np.repeat(picture[..., None], 3, axis=2)  # it has no grey
        return bytes(imagecodecs.webp_encode(three, level=100, method=6, lossless=True, numthreads=1))

    def jpeg_xl(picture: Bytes) -> bytes:
        return bytes(imagecodecs.jpegxl_encode(picture, effort=9, lossless=True, numthreads=1))

    return {
        "WebP": Coder(webp, lambda written, _: imagecodecs.webp_decode(written)[..., 0]),
        "JPEG XL": Coder(jpeg_xl, lambda written, _: imagecodecs.jpegxl_decode(written, numthreads=1)),
        "PNG": Coder(png, lambda written, _: imagecodecs.png_decode(written)),
        "JPEG-LS": Coder(
            lambda picture: bytes(imagecodecs.jpegls_encode(picture)),
            lambda written, _: imagecodecs.jpegls_decode(written),
        ),
    }


def _array(content: bytes) -> Bytes:
    return np.frombuffer(content, np.uint8)


def measure(name: str, case: str) -> dict[str, Any]:
    """Bits a pixel by each coder, and what the pixels are known by."""
    part = PARTS[case]
    column = open_source(f"sample:{name}").table()["image"].slice(part.first).combine_chunks()
    images = column.flatten().to_numpy().reshape(-1, SIDE, SIDE)
    picture = mosaic(images, part.across)
    return {
        "images": len(images),
        "pixels_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
        "bits": {
            **{tool: bits(coder, images) for tool, coder in coders_of_bytes().items()},
            **{tool: bits(coder, picture) for tool, coder in coders_of_pictures().items()},
        },
        "versions": {tool: version(tool) for tool in TOOLS},
    }


def _tell(part: Part) -> Callable[[Facts], str]:
    def tell(facts: Facts) -> str:
        found = sorted(facts["bits"].items(), key=lambda item: item[1])
        told = ", ".join(f"{tool} {size:.3f}" for tool, size in found)
        down = facts["images"] // part.across
        return f"bits a pixel of {part.told}: {told}; pictures are one mosaic, {part.across} × {down} images"

    return tell


def benchmark(name: str) -> Benchmark:
    """The benchmark of one set."""
    return Benchmark(
        f"{TITLES[name]}, exact: the same images by general coders",
        "",
        ("benchmarks/pictures.py",),
        {case: Case(part._asdict(), "", _tell(part)) for case, part in PARTS.items()},
        lambda case, _: measure(name, case),
        tools=TOOLS,
    )


PICTURES = {f"pictures-{name}": benchmark(name) for name in SETS}
