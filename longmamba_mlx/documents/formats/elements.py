"""Turn HTML elements into paragraphs, headings, lists, tables and anchors, in one pass without a tree."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from longmamba_mlx.documents.formats.builder import TextBuilder
from longmamba_mlx.documents.formats.hidden import (
    BLOCKS,
    CONTROLS,
    SKIPPED,
    VOID,
    Skipped,
    is_hidden,
    is_page_number,
)
from longmamba_mlx.documents.formats.rows import Row, is_short
from longmamba_mlx.documents.formats.tags import Tags
from longmamba_mlx.documents.sanitise import clean

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_MOST_LISTS, _MOST_COMPARED = 20, 1000


@dataclass
class Page:
    """What one HTML file added to the text: headings (position, label, level) and the positions of its ids."""

    headings: list[tuple[int, str, int]] = field(default_factory=list)
    anchors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Show:
    """What is read besides visible text: hidden parts, and <noscript> whose text is not in `elsewhere`."""

    hidden: bool = False
    elsewhere: str = ""


class PageReader(Tags):
    """Writes a page's text to a builder. `noscript`: include the content of <noscript>."""

    def __init__(self, out: TextBuilder, show: Show, *, noscript: bool = True) -> None:
        super().__init__()
        self.page = Page()
        self.left_out = {"hidden": 0, "control": 0, "": 0}
        """Letters that were passed over, by why."""
        self._out, self._show = out, show
        self._unread = SKIPPED if noscript else SKIPPED | {"noscript"}
        self._inline: list[str] = []
        self._skipped: Skipped | None = None
        self._why = ""
        self._noscript = self._compared = 0
        self._pre = 0
        self._heading = 0
        self._lists: list[int] = []  # the next number of each list around, 0 where items have none
        self._item = ""  # what the next paragraph begins with: "- ", "3. "
        self._tight = False
        self._raised: int | None = None  # where in `_inline` the open <sup> begins
        self._link: int | None = None  # and the open link to a place within a page
        self._tables = 0
        self._rows: list[tuple[int, Row]] = []  # the open rows, each with how deep its table is

    def read(self, text: str) -> None:
        """A whole page; tags that are not ended end with it."""
        self.feed(text)
        self.close()
        self._end_skipped()
        self.end_block()
        self._end_row(0)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._skipped is not None:
            if not self._skipped.start(tag):
                return
            self._end_skipped()
        attributes = dict(attrs)
        if tag in BLOCKS:
            self.end_block()
        if self._skips(tag, attributes):
            return
        for name in ("id", "name") if tag == "a" else ("id",):
            if key := attributes.get(name):
                self.page.anchors.setdefault(key, self._out.position)
        if action := _STARTS.get(tag):
            action(self, attributes)
        elif level := _HEADINGS.get(tag):
            self._heading = level

    def _skips(self, tag: str, attributes: dict[str, str | None]) -> bool:
        """Start skipping at a start tag whose element is not read; return whether it is skipped."""
        if tag in VOID:
            return False
        hidden = is_hidden(tag, attributes)
        if tag in self._unread or is_page_number(attributes) or (hidden and not self._show.hidden):
            self._skipped = Skipped(tag)
            self._why = "hidden" if hidden else "control" if tag in CONTROLS else ""
        return self._skipped is not None

    def _end_skipped(self) -> None:
        if self._skipped is not None:
            self.left_out[self._why] += self._skipped.letters
            self._skipped = None

    def handle_endtag(self, tag: str) -> None:
        if self._skipped is not None:
            if not self._skipped.end(tag):
                return
            own = tag == self._skipped.tag
            self._end_skipped()
            if own:
                return
        if tag in BLOCKS or tag in ("tr", "td", "th"):
            self.end_block()
        if action := _ENDS.get(tag):
            action(self)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """In XHTML <script/> and <title/> are whole; in HTML the slash means nothing."""
        if tag in ("script", "style") and not self.is_closed(tag):
            self.handle_starttag(tag, attrs)
            self.set_cdata_mode(tag)
        elif tag not in SKIPPED:
            self.handle_starttag(tag, attrs)
            if tag not in VOID:
                self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if self._skipped is None:
            self._inline.append(clean(data))
        else:
            self._skipped.letters += len(data.strip())

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
        if self._noscript and self._is_elsewhere(text):
            return
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

    def _is_elsewhere(self, text: str) -> bool:
        self._compared += 1
        return self._compared < _MOST_COMPARED and " ".join(text.split()) in self._show.elsewhere

    def _begin_noscript(self, attributes: dict[str, str | None]) -> None:
        self._noscript += 1

    def _end_noscript(self) -> None:
        self._noscript = max(self._noscript - 1, 0)

    def _begin_pre(self, attributes: dict[str, str | None]) -> None:
        self._pre += 1

    def _end_pre(self) -> None:
        self._pre = max(self._pre - 1, 0)

    def _image(self, attributes: dict[str, str | None]) -> None:
        """Write a picture's alternative text: a single letter (an initial) as it is, more words in brackets."""
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


_STARTS: dict[str, Callable[[PageReader, dict[str, str | None]], None]] = {
    "br": PageReader._break,
    "ul": PageReader._begin_list,
    "menu": PageReader._begin_list,
    "ol": PageReader._begin_numbered,
    "li": PageReader._begin_item,
    "tr": PageReader._begin_row,
    "td": PageReader._begin_cell,
    "th": PageReader._begin_cell,
    "table": PageReader._begin_table,
    "noscript": PageReader._begin_noscript,
    "pre": PageReader._begin_pre,
    "img": PageReader._image,
    "a": PageReader._begin_link,
    "sup": PageReader._begin_raised,
    "q": PageReader._quote,
}
_ENDS: dict[str, Callable[[PageReader], None]] = {
    "ul": PageReader._end_list,
    "menu": PageReader._end_list,
    "ol": PageReader._end_list,
    "tr": PageReader._end_row,
    "table": PageReader._end_table,
    "noscript": PageReader._end_noscript,
    "pre": PageReader._end_pre,
    "a": PageReader._end_link,
    "sup": PageReader._end_raised,
    "q": PageReader._end_quote,
}


def _collapse(text: str) -> str:
    """Collapse white space as a browser does; explicit line breaks (NUL here) stay, one or two."""
    return "\n".join(" ".join(line.split()) for line in text.split("\x00"))
