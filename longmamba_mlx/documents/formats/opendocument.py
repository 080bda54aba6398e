"""Read OpenDocument (ODT, ODP, ODS, flat XML): paragraphs, headings, lists, tables, notes, comments, page headers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO
from xml.etree.ElementTree import Element

from longmamba_mlx.documents.formats import xmltree
from longmamba_mlx.documents.formats.archive import Archive
from longmamba_mlx.documents.formats.asides import Notes, running
from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.outline import LEVELS, NumberedList, Outline
from longmamba_mlx.documents.formats.rows import Row, is_short
from longmamba_mlx.documents.formats.xmltree import attribute, local

_MANIFEST = "META-INF/manifest.xml"
_SKIPPED = frozenset(
    "tracked-changes table-of-content alphabetical-index forms scripts settings font-face-decls binary-data "
    "bibliography-configuration event-listeners".split()
)
_PARAGRAPHS = ("p", "h")
_SILENT = frozenset("binary-data ruby-text event-listeners annotation-end change change-start change-end".split())
_WHITE = re.compile("[ \t\r\n]+")
_MOST_SPACES = 1000
_HEADINGS = "\0headings"  # the list that numbers headings
_FORMATS = {"1": "decimal", "a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A flat OpenDocument file. Raises Refused."""
    out = TextBuilder()
    reader = _Reader(out)
    reader.read(file)
    reader.finish()
    return out.finish()


def read_package(archive: Archive) -> Parsed:
    """An OpenDocument package's text. Raises Refused."""
    if _MANIFEST in archive.names and b"encryption-data" in archive.read(_MANIFEST):
        raise Refused("locked")
    out = TextBuilder()
    reader = _Reader(out)
    if "styles.xml" in archive.names:
        reader.read(archive.open("styles.xml"))
    reader.read(archive.open("content.xml"))
    reader.finish()
    return out.finish()


@dataclass(slots=True)
class _Place:
    """An open list: its style, and whether its item has not been labelled yet."""

    style: str
    fresh: bool = False


@dataclass
class _Reader:
    """Reads the elements as a stream and frees each paragraph when it is written."""

    out: TextBuilder
    _path: list[str] = field(default_factory=list)
    _notes: Notes = field(default_factory=Notes)
    _outline: Outline = field(default_factory=Outline)
    _lists: list[_Place] = field(default_factory=list)
    _rows: list[Row] = field(default_factory=list)
    _running: dict[str, list[str]] = field(default_factory=lambda: {"Header": [], "Footer": []})
    _skip: int = 0
    _depth: int = 0  # of paragraphs within each other
    _tight: bool = False
    _told: int = 0  # headers that were written

    def read(self, stream: xmltree.Readable) -> None:
        for start, element in xmltree.events(stream):
            if start:
                self._begin(element)
            else:
                self._end(element)
        if self._path:
            raise Refused("damaged")

    def finish(self) -> None:
        for line in running("Footer", self._running["Footer"]):
            self.out.paragraph(line)

    def _begin(self, element: Element) -> None:
        name = local(element.tag)
        self._path.append(name)
        self._skip += name in _SKIPPED
        self._depth += name in _PARAGRAPHS
        if self._skip or self._depth:
            return
        if name == "list":
            style = attribute(element, "style-name") or (self._lists[-1].style if self._lists else "")
            if not self._lists and attribute(element, "continue-numbering") != "true":
                self._outline.restart(style)
            self._lists.append(_Place(style))
        elif name in ("list-item", "list-header") and self._lists:
            self._lists[-1].fresh = name == "list-item"
        elif name == "table-row":
            self._rows.append(Row())
        elif name in ("table-cell", "covered-table-cell") and self._rows:
            self._rows[-1].begin_cell()
        elif name == "body":
            self._tell_headers()

    def _end(self, element: Element) -> None:
        name = self._path.pop()
        self._depth -= name in _PARAGRAPHS
        if self._skip:
            self._skip -= name in _SKIPPED
        elif self._depth:
            return  # a part of a paragraph, which is read whole
        elif name in _PARAGRAPHS:
            self._paragraph(name, element)
        elif name == "list" and self._lists:
            self._lists.pop()
        elif name == "table-row":
            self._end_row()
        elif name == "table":
            self._tight = False
        elif name in ("list-style", "outline-style"):
            self._outline.add(attribute(element, "name") if name == "list-style" else _HEADINGS, _numbered(element))
        elif name == "annotation":  # of a table's cell
            self._comment(element)
            self._write_notes()
        if name in (*_PARAGRAPHS, "table-row", "table", "list-style", "style") or self._skip:
            tail, element.tail = element.tail, None
            element.clear()
            element.tail = tail

    def _paragraph(self, name: str, element: Element) -> None:
        text = "".join(self._words(element)).strip(" \n")
        if kind := next((kind for kind in self._running if kind.lower() in _plain(self._path)), None):
            self._running[kind].append(text)
            return
        if "annotation" in self._path:
            return
        level = 0
        if name == "h":
            given = attribute(element, "outline-level", "1")
            level = int(given) if given.isdecimal() and len(given) == 1 else 1
        label = self._label(level)
        if text.strip():
            self._emit(label + text, level, item=label)
        self._write_notes()

    def _label(self, level: int) -> str:
        """Return the automatic number or bullet of a paragraph."""
        if level:
            return self._outline.next_label(_HEADINGS, str(level - 1))
        if not self._lists or not self._lists[-1].fresh:
            return ""
        self._lists[-1].fresh = False
        return self._outline.next_label(self._lists[-1].style, str(len(self._lists) - 1)) or "- "

    def _write_notes(self) -> None:
        for line in self._notes.take():
            self._emit(line, 0, item="")

    def _emit(self, text: str, level: int, *, item: str) -> None:
        if self._rows:
            self._rows[-1].add(text, level)
            return
        if level:
            self.out.mark("chapter", text, 0, level)
        is_item = bool(item) and not level
        self.out.paragraph(text, tight=self._tight and is_item and is_short(text))
        self._tight = is_item

    def _end_row(self) -> None:
        if not self._rows:
            return
        row = self._rows.pop()
        row.drop_empty_end()
        for text, level in row.paragraphs():
            is_line = " | " in text and not level
            self._emit(text, level, item=" | " if is_line else "")

    def _tell_headers(self) -> None:
        for line in running("Header", self._running["Header"])[self._told :]:
            self.out.paragraph(line)
            self._told += 1

    def _words(self, element: Element) -> Iterator[str]:
        """The text of a paragraph and of the elements inside it."""
        yield _WHITE.sub(" ", element.text or "")
        for child in element:
            yield from self._part(local(child.tag), child)
            yield _WHITE.sub(" ", child.tail or "")

    def _part(self, name: str, element: Element) -> Iterator[str]:
        if name == "s":
            count = attribute(element, "c", "1")
            yield " " * min(int(count) if count.isdecimal() and len(count) < 6 else 1, _MOST_SPACES)
        elif name == "tab":
            yield "\t"
        elif name == "line-break":
            yield "\n"
        elif name == "note":
            body = next((part for part in element if local(part.tag) == "note-body"), None)
            if body is not None:
                yield self._notes.refer(" ".join("".join(self._words(part)) for part in body))
        elif name == "annotation":
            self._comment(element)
        elif name in ("title", "desc"):  # of a picture
            words = " ".join((element.text or "").split())
            yield f"[{words}]" if words else ""
        elif name in _PARAGRAPHS or name in ("list-item", "table-cell"):  # in a text box
            yield "\n"
            yield from self._words(element)
            yield "\n"
        elif name not in _SILENT:
            yield from self._words(element)

    def _comment(self, element: Element) -> None:
        author = next((part.text or "" for part in element if local(part.tag) == "creator"), "")
        lines = ["".join(self._words(part)) for part in element if local(part.tag) in (*_PARAGRAPHS, "list")]
        self._notes.comment(" ".join(lines), author)


def _plain(path: list[str]) -> set[str]:
    """The elements around, headers of left and first pages as headers."""
    return {name.removesuffix("-left").removesuffix("-first") for name in path}


def _numbered(style: Element) -> NumberedList:
    """How a list style numbers its levels; those without a number have a bullet, or in headings nothing."""
    found = NumberedList()
    found.formats = ["bullet" if local(style.tag) == "list-style" else "none"] * LEVELS
    for level in style:
        given = attribute(level, "level")
        depth = int(given) - 1 if given.isdecimal() and len(given) == 1 else -1
        form = _FORMATS.get(attribute(level, "num-format"))
        if form is None or not 0 <= depth < LEVELS:
            continue
        shown = attribute(level, "display-levels", "1")
        first = max(depth + 1 - int(shown), 0) if shown.isdecimal() and len(shown) == 1 else depth
        numbers = ".".join(f"%{index + 1}" for index in range(first, depth + 1))
        found.formats[depth] = form
        found.texts[depth] = f"{attribute(level, 'num-prefix')[:20]}{numbers}{attribute(level, 'num-suffix')[:20]}"
        start = attribute(level, "start-value", "1")
        found.starts[depth] = int(start) if start.isdecimal() and len(start) < 6 else 1
    return found
