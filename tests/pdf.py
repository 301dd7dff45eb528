"""The text on each page of a PDF that Chromium printed: enough of the format for that, and for no other."""

from __future__ import annotations

import re
import zlib

OBJECT = re.compile(rb"(?:^|\n)(\d+) 0 obj(.*?)\nendobj", re.DOTALL)
FONT_OR_TEXT = re.compile(rb"/(\w+) [\d.-]+ Tf|\[?((?:<[0-9A-Fa-f]*>|[\s\d.-])+)\]?\s*T[jJ]")


def pages(content: bytes) -> list[str]:
    """The text of each page, in the order in which it was drawn."""
    objects = {int(number): body for number, body in OBJECT.findall(content)}
    return [_text(body, objects) for body in objects.values() if re.search(rb"/Type\s*/Page\b", body)]


def _text(page: bytes, objects: dict[int, bytes]) -> str:
    fonts = {
        name: _letters(objects[int(place)], objects)
        for name, place in re.findall(rb"/(\w+) (\d+) 0 R", _within(page, rb"/Font\s*<<(.*?)>>"))
    }
    drawn = _stream(objects[int(_within(page, rb"/Contents (\d+) 0 R"))])
    text, letters = "", dict[str, str]()
    for font, words in FONT_OR_TEXT.findall(drawn):
        if font:
            letters = fonts.get(font, {})
            continue
        for run in re.findall(rb"<([0-9A-Fa-f]*)>", words):
            glyphs = re.findall("....", run.decode().upper())
            text += "".join(letters.get(glyph, "") for glyph in glyphs)
        text += " "
    return text


def _letters(font: bytes, objects: dict[int, bytes]) -> dict[str, str]:
    """What each glyph of a font stands for."""
    table = _stream(objects[int(_within(font, rb"/ToUnicode (\d+) 0 R"))]).decode()
    found: dict[str, str] = {}
    for block in re.findall(r"beginbfchar(.*?)endbfchar", table, re.DOTALL):
        for glyph, letters in re.findall(r"<(\w+)>\s*<(\w+)>", block):
            found[glyph.upper()] = bytes.fromhex(letters).decode("utf-16-be")
    for block in re.findall(r"beginbfrange(.*?)endbfrange", table, re.DOTALL):
        for first, last, letter in re.findall(r"<(\w+)>\s*<(\w+)>\s*<(\w+)>", block):
            for k in range(int(last, 16) - int(first, 16) + 1):
                found[f"{int(first, 16) + k:04X}"] = chr(int(letter, 16) + k)
    return found


def _within(body: bytes, pattern: bytes) -> bytes:
    found = re.search(pattern, body, re.DOTALL)
    return found[1] if found else b""


def _stream(body: bytes) -> bytes:
    packed = re.search(rb"stream\r?\n(.*?)\r?\nendstream", body, re.DOTALL)
    assert packed
    return zlib.decompress(packed[1]) if b"FlateDecode" in body else packed[1]
