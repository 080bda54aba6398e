"""Read HTML: decode the page, decide which hidden parts to read, and write its text."""

from __future__ import annotations

import re
from typing import IO

from longmamba_mlx.documents.decode import UndecodableError, decode, encoding_note
from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.elements import Page, PageReader, Show
from longmamba_mlx.documents.formats.hidden import MAY_HIDE

_DECLARED = re.compile(
    rb"""(?:<meta[^>]{0,200}?charset\s*=\s*|<\?xml[^>]{0,100}?encoding\s*=\s*)["']?([\w.:-]+)""", re.I
)
_LITTLE, _MUCH, _TIMES = 500, 200, 10  # letters: a page that shows so few and hides so many waits for a script


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A web page: its text with its headings as chapters. Raises Refused."""
    out = TextBuilder()
    page = add_html(to_text(file.read(), out, encoding), out)
    for position, label, level in page.headings:
        out.mark("chapter", label, 0, level, at=position)
    return out.finish()


def to_text(data: bytes, out: TextBuilder, encoding: str = "", declared: str = "") -> str:
    """Decode an HTML file by the user's encoding, its byte order mark, its declaration, or a guess.

    Notes a guess. Raises Refused.
    """
    if not declared:
        found = _DECLARED.search(data[:4096])
        declared = found[1].decode("ascii", "replace") if found else ""
    try:
        decoded = decode(data, declared, encoding)
    except UndecodableError:
        raise Refused("damaged") from None
    if decoded.note:
        out.note(encoding_note(decoded.note))
    return decoded.text


def add_html(text: str, out: TextBuilder) -> Page:
    """Add an HTML file's text to `out`, with a note on what of it was left out."""
    show = _show(text) if MAY_HIDE.search(text) else Show()
    reader = PageReader(out, show)
    reader.read(text)
    if show.hidden:
        out.note("Parts of the page that are hidden until a script shows them were read too.")
    elif reader.left_out["hidden"]:
        out.note("Hidden parts of the page were left out.")
    if reader.left_out["control"]:
        out.note("Navigation, buttons or menus of the page were left out.")
    return reader.page


def _show(text: str) -> Show:
    """Decide which hidden parts to read, from a first pass over what a browser with scripts shows at once."""
    seen = TextBuilder()
    reader = PageReader(seen, Show(), noscript=False)
    reader.read(text)
    shown, hidden = len(seen.text), reader.left_out["hidden"]
    waits = not shown or (shown < _LITTLE and hidden > max(_MUCH, _TIMES * shown))
    return Show(waits, " ".join(seen.text.split()))
