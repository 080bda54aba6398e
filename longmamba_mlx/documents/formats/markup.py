"""HTML -> paragraphs, headings and anchors, without building a tree: depth and size cost nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import IO

from longmamba_mlx.documents.decode import UndecodableError, decode, encoding_note
from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.rows import Row, is_short
from longmamba_mlx.documents.sanitise import clean

_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu ol p pre section summary table tbody "
    "tfoot thead ul".split()
)
_SKIPPED = frozenset(
    "annotation audio button canvas datalist del head iframe nav noembed noframes noscript object rp rt script "
    "select style svg template textarea title video".split()
)
_MAY_END_ITSELF = frozenset("p li dt dd tr td th thead tbody tfoot option html head body colgroup".split())
_VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_HIDDEN = re.compile(r"display\s*:\s*none", re.I)
_DECLARED = re.compile(
    rb"""(?:<meta[^>]{0,200}?charset\s*=\s*|<\?xml[^>]{0,100}?encoding\s*=\s*)["']?([\w.:-]+)""", re.I
)
_MOST_LISTS = 20


@dataclass
class Page:
    """What one HTML file added to the text: headings (position, label, level) and the positions of its ids."""

    headings: list[tuple[int, str, int]] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A web page: its text with its headings as chapters. Raises Refused."""
    out = TextBuilder()
    page = add_html(to_text(file.read(), out, encoding), out)
    for position, label, level in page.headings:
        out.mark("chapter", label, 0, level, at=position)
    return out.finish()


def to_text(data: bytes, out: TextBuilder, encoding: str = "", declared: str = "") -> str:
    """The characters of an HTML file: in the encoding asked for, else by its mark, what is declared, or a guess.

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
    """Add an HTML file's text to `out`."""
    reader = _Reader(out)
    reader.feed(text)
    reader.close()
    reader.finish()
    return reader.page


class _Reader(HTMLParser):
    def __init__(self, out: TextBuilder) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._out = out
        self._inline: list[str] = []
        self._skipped, self._depth = "", 0
        self._pre = 0
        self._heading = 0
        self._lists: list[int] = []  # the next number of each list around, 0 where items have none
        self._item = ""  # what the next paragraph begins with: "- ", "3. "
        self._tight = False
        self._raised: int | None = None  # where in `_inline` the open <sup> begins
        self._link: int | None = None  # and the open link to a place within a page
        self._tables = 0
        self._rows: list[tuple[int, Row]] = []  # the open rows, each with how deep its table is

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if self._skipped:
            self._depth += tag == self._skipped
            return
        if tag in _BLOCKS:
            self.end_block()
        if tag not in _VOID and (tag in _SKIPPED or (tag not in _MAY_END_ITSELF and _is_hidden(attributes))):
            self._skipped, self._depth = tag, 1
            return
        for name in ("id", "name") if tag == "a" else ("id",):
            if key := attributes.get(name):
                self.page.anchors.setdefault(key, self._out.position)
        if action := _STARTS.get(tag):
            action(self, attributes)
        elif level := _HEADINGS.get(tag):
            self._heading = level

    def handle_endtag(self, tag: str) -> None:
        if self._skipped:
            self._depth -= tag == self._skipped
            if self._depth == 0:
                self._skipped = ""
            return
        if tag in _BLOCKS or tag in ("tr", "td", "th"):
            self.end_block()
        if action := _ENDS.get(tag):
            action(self)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """In XHTML <script/> and <title/> are whole; in HTML the slash means nothing, but nobody writes it."""
        if tag not in _SKIPPED:
            self.handle_starttag(tag, attrs)
            if tag not in _VOID:
                self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._inline.append(clean(data))

    def finish(self) -> None:
        """There is no more text; tags that were not ended end here."""
        self.end_block()
        self._end_row(0)

    def end_block(self) -> None:
        """The text since the last block is a paragraph, or several where line breaks part them."""
        text = "".join(self._inline)
        self._inline.clear()
        self._raised = self._link = None
        if self._pre:
            pieces = ["\n".join(line.rstrip() for line in text.splitlines())]
        else:
            pieces = re.split(r"\n{2,}", _collapse(text))
        for piece in pieces:
            if piece.strip():
                self._emit(piece if self._pre else piece.strip(), self._heading)
        self._heading = 0

    def _emit(self, text: str, level: int) -> None:
        if self._rows:
            self._rows[-1][1].add(text, level)
            return
        if level:
            label = " ".join(text.split())
            self.page.headings.append((self._out.position, label, level))
        indent = "  " * max(len(self._lists) - 1, 0) if self._item else ""
        self._out.paragraph(indent + self._item + text, tight=self._tight and bool(self._item) and is_short(text))
        self._tight, self._item = bool(self._item), ""

    # ------------------------------------------------------------------------------------------ single elements

    def _break(self, attributes: dict[str, str | None]) -> None:
        self._inline.append("\n" if self._pre else "\x00")

    def _begin_list(self, attributes: dict[str, str | None]) -> None:
        if len(self._lists) < _MOST_LISTS:
            self._lists.append(0)

    def _begin_numbered(self, attributes: dict[str, str | None]) -> None:
        start = attributes.get("start") or "1"
        if len(self._lists) < _MOST_LISTS:
            self._lists.append(int(start) if start.isdecimal() and len(start) < 7 else 1)

    def _end_list(self) -> None:
        if self._lists:
            self._lists.pop()
        self._item = ""
        self._tight = self._tight and bool(self._lists)

    def _begin_item(self, attributes: dict[str, str | None]) -> None:
        if self._lists and self._lists[-1]:
            self._item = f"{self._lists[-1]}. "
            self._lists[-1] += 1
        else:
            self._item = "- "

    def _begin_table(self, attributes: dict[str, str | None]) -> None:
        self._tables += 1
        self._tight = False

    def _end_table(self) -> None:
        self._end_row()
        self._tables = max(self._tables - 1, 0)
        self._tight = False

    def _begin_row(self, attributes: dict[str, str | None]) -> None:
        self.end_block()
        self._end_row()
        if len(self._rows) < _MOST_LISTS:
            self._rows.append((self._tables, Row()))

    def _begin_cell(self, attributes: dict[str, str | None]) -> None:
        self.end_block()
        if self._rows:
            self._rows[-1][1].begin_cell()

    def _end_row(self, depth: int | None = None) -> None:
        """The open row of this table, if it has one: the tag that ends it may be left out."""
        depth = self._tables if depth is None else depth
        while self._rows and self._rows[-1][0] >= depth:
            _, row = self._rows.pop()
            self._item = ""
            for text, level in row.paragraphs():
                if self._rows or level or " | " not in text:
                    self._emit(text, level)
                else:
                    self._out.paragraph(text, tight=self._tight)
                    self._tight = True

    def _begin_pre(self, attributes: dict[str, str | None]) -> None:
        self._pre += 1

    def _end_pre(self) -> None:
        self._pre = max(self._pre - 1, 0)

    def _image(self, attributes: dict[str, str | None]) -> None:
        """A letter drawn as a picture begins many a chapter; other pictures are told in brackets."""
        words = " ".join((attributes.get("alt") or "").split())
        if words:
            self._inline.append(words if len(words) == 1 else f"[{words}]")

    def _begin_link(self, attributes: dict[str, str | None]) -> None:
        self._link = len(self._inline) if "#" in (attributes.get("href") or "") else None

    def _end_link(self) -> None:
        """A link that is only a number leads to a note: [1], so that it does not run into the word before it."""
        if self._link is None:
            return
        text = "".join(self._inline[self._link :]).strip()
        if text.isdecimal():
            before = "".join(self._inline[: self._link]).strip()
            self._inline[self._link :] = [f"[{text}]" if before else f"[{text}] "]
        elif text.strip("\ufe0e") == "↩":
            del self._inline[self._link :]
        self._link = None

    def _begin_raised(self, attributes: dict[str, str | None]) -> None:
        self._raised = len(self._inline)

    def _end_raised(self) -> None:
        """A power is ^2, for the same reason."""
        if self._raised is not None and self._link is None:
            before = "".join(self._inline[: self._raised])
            if before[-1:].isalnum() and "".join(self._inline[self._raised :]).strip().isdecimal():
                self._inline.insert(self._raised, "^")
        self._raised = None

    def _quote(self, attributes: dict[str, str | None]) -> None:
        self._inline.append("“")

    def _end_quote(self) -> None:
        self._inline.append("”")


_STARTS: dict[str, Callable[[_Reader, dict[str, str | None]], None]] = {
    "br": _Reader._break,
    "ul": _Reader._begin_list,
    "menu": _Reader._begin_list,
    "ol": _Reader._begin_numbered,
    "li": _Reader._begin_item,
    "tr": _Reader._begin_row,
    "td": _Reader._begin_cell,
    "th": _Reader._begin_cell,
    "table": _Reader._begin_table,
    "pre": _Reader._begin_pre,
    "img": _Reader._image,
    "a": _Reader._begin_link,
    "sup": _Reader._begin_raised,
    "q": _Reader._quote,
}
_ENDS: dict[str, Callable[[_Reader], None]] = {
    "ul": _Reader._end_list,
    "menu": _Reader._end_list,
    "ol": _Reader._end_list,
    "tr": _Reader._end_row,
    "table": _Reader._end_table,
    "pre": _Reader._end_pre,
    "a": _Reader._end_link,
    "sup": _Reader._end_raised,
    "q": _Reader._end_quote,
}


def _is_hidden(attributes: dict[str, str | None]) -> bool:
    """Not shown, or a printed page's number in the middle of an e-book's text."""
    roles = f"{attributes.get('epub:type')} {attributes.get('role')}"
    return "hidden" in attributes or bool(_HIDDEN.search(attributes.get("style") or "")) or "pagebreak" in roles


def _collapse(text: str) -> str:
    """White space as a browser shows it; line breaks asked for (NUL here) stay, one or two."""
    return "\n".join(" ".join(line.split()) for line in text.split("\x00"))
