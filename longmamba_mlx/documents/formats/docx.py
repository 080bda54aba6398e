"""DOCX: Word's paragraphs, headings, lists, tables, notes, comments and page headers, read as a stream."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from longmamba_mlx.documents.formats import xmltree
from longmamba_mlx.documents.formats.archive import Archive
from longmamba_mlx.documents.formats.asides import Notes, running
from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.docx_parts import (
    OUTLINE_LEVELS,
    SKIPPED,
    Beside,
    Style,
    comments_of,
    notes_of,
    relationships_of,
    running_texts,
    styles_of,
)
from longmamba_mlx.documents.formats.embedded import add_embedded
from longmamba_mlx.documents.formats.outline import Outline
from longmamba_mlx.documents.formats.rows import Row, is_short
from longmamba_mlx.documents.formats.xmltree import attribute, local

_CONTENTS = re.compile(r"toc [1-9]|(?:contents|toc) heading", re.I)
_OFF = ("0", "false", "off")
_SYMBOLS = {0xA8: "☐", 0x6F: "☐", 0xFE: "☑", 0xFD: "☒", 0xFC: "✓", 0xFB: "✗", 0xB7: "•", 0xE0: "→", 0xE8: "→"}
_BASE_STYLES = 20  # links from style to style that are followed


@dataclass(slots=True)
class _Paragraph:
    text: list[str] = field(default_factory=list)
    style: str = ""
    level: int = 0  # a heading's, told by the paragraph itself
    numbering: tuple[str, str] | None = None  # list and level
    joins: bool = False  # its end was deleted: the next paragraph goes on


def read_docx(archive: Archive) -> Parsed:
    """A Word document's text, its headings as chapters. Raises Refused."""
    main = "word/document.xml"
    if main not in archive.names:
        main = next((name for name in sorted(archive.names) if name.startswith("word/document")), main)
    numbering = xmltree.parse(archive.open("word/numbering.xml")) if "word/numbering.xml" in archive.names else None
    out = TextBuilder()
    notes = notes_of(archive, "footnote") | notes_of(archive, "endnote")
    beside = Beside(notes, comments_of(archive), relationships_of(archive, main))
    for line in running("Header", running_texts(archive, "header")):
        out.paragraph(line)
    _Reader(out, styles_of(archive), Outline(numbering), beside).read(archive, main)
    for line in running("Footer", running_texts(archive, "footer")):
        out.paragraph(line)
    return out.finish()


class _Reader:
    """Reads the main file's elements as a stream and frees each paragraph when it is written."""

    def __init__(self, out: TextBuilder, styles: dict[str, Style], outline: Outline, beside: Beside) -> None:
        self._out, self._styles, self._outline, self._beside = out, styles, outline, beside
        self._notes = Notes()
        self._archive: Archive | None = None
        self._held: list[str] = []  # the text of paragraphs whose end was deleted
        self._open: list[_Paragraph] = []  # paragraphs within paragraphs: text boxes
        self._rows: list[Row] = []
        self._tight = False
        self._skip = 0
        self._run: int | None = None  # where the present run's text begins
        self._hidden = False

    def read(self, archive: Archive, main: str) -> None:
        self._archive = archive
        path: list[str] = []
        for start, element in xmltree.events(archive.open(main)):
            name = local(element.tag)
            if start:
                if name in ("del", "moveFrom") and path[-2:] == ["pPr", "rPr"] and self._open:
                    self._open[-1].joins = True
                path.append(name)
                self._skip += name in SKIPPED
                if not self._skip and name in _STARTS:
                    _STARTS[name](self)
                continue
            path.pop()
            if self._skip:
                self._skip -= name in SKIPPED
            else:
                self._end(name, element, path)
            if name in ("p", "tbl", "r", "Fallback"):
                element.clear()
        if path:
            raise Refused("damaged")
        self._end_joined()
        self._write_notes()

    def _end(self, name: str, element: Element, path: list[str]) -> None:
        if name == "tc":
            self._end_joined()
        elif name == "tr":
            self._end_row()
        elif name == "tbl":
            self._tight = False
        elif name == "altChunk":
            self._add_file(attribute(element, "id"))
        elif not self._open:
            return
        elif name == "p":
            self._end_paragraph()
        elif name == "r":
            self._end_run()
        elif "pPr" in path:
            self._property(name, element)
        elif name == "vanish":
            self._hidden = attribute(element, "val") not in _OFF
        else:
            self._content(name, element)

    def _begin_paragraph(self) -> None:
        self._open.append(_Paragraph())

    def _begin_run(self) -> None:
        self._run, self._hidden = (len(self._open[-1].text) if self._open else None), False

    def _end_run(self) -> None:
        if self._hidden and self._run is not None:
            del self._open[-1].text[self._run :]
        self._hidden = False

    def _begin_row(self) -> None:
        self._end_joined()
        self._rows.append(Row())

    def _begin_cell(self) -> None:
        if self._rows:
            self._rows[-1].begin_cell()

    def _property(self, name: str, element: Element) -> None:
        """Set a property of the paragraph: its style, list or outline level."""
        paragraph, value = self._open[-1], attribute(element, "val")
        if name == "pStyle":
            paragraph.style = value
        elif name == "outlineLvl" and value in OUTLINE_LEVELS:
            paragraph.level = int(value) + 1
        elif name in ("numId", "ilvl"):
            number, level = paragraph.numbering or ("", "0")
            paragraph.numbering = (value, level) if name == "numId" else (number, value)

    def _content(self, name: str, element: Element) -> None:
        paragraph = self._open[-1]
        if name == "t":
            paragraph.text.append(element.text or "")
        elif name == "tab":
            paragraph.text.append("\t")
        elif name in ("br", "cr"):
            paragraph.text.append("\n")
        elif name == "noBreakHyphen":
            paragraph.text.append("-")
        elif name == "sym":
            paragraph.text.append(_symbol(attribute(element, "char")))
        elif name in ("footnoteReference", "endnoteReference"):
            key = f"{name.removesuffix('Reference')} {attribute(element, 'id')}"
            paragraph.text.append(self._notes.refer(self._beside.notes.get(key, "")))
        elif name == "commentReference":
            self._notes.comment(*self._beside.comments.get(attribute(element, "id"), ("", "")))

    def _add_file(self, key: str) -> None:
        name = self._beside.files.get(key, "")
        if self._archive is not None and name in self._archive.names:
            add_embedded(self._archive.read(name), name, self._out)

    def _end_paragraph(self) -> None:
        paragraph = self._open.pop()
        if paragraph.joins and not self._open:
            self._held += paragraph.text
            return
        if not self._open:
            paragraph.text[:0], self._held = self._held, []
        text = "".join(paragraph.text).strip(" \n")
        style, level = self._inherited(paragraph.style)
        if not text.strip() or _CONTENTS.fullmatch(style.name):
            return
        number, depth = paragraph.numbering or style.numbering
        label = self._outline.next_label(number, depth) if number not in ("", "0") else ""
        self._emit(label + text, paragraph.level or level, item=label)
        if not self._open:
            self._write_notes()

    def _write_notes(self) -> None:
        for note in self._notes.take():
            self._emit(note, 0, item="")

    def _end_joined(self) -> None:
        """Write the text held for a deleted paragraph mark that no paragraph continues."""
        text, self._held = "".join(self._held).strip(" \n"), []
        if text:
            self._emit(text, 0, item="")

    def _inherited(self, key: str) -> tuple[Style, int]:
        """A paragraph style and the heading level that it or one it is based on has."""
        style = found = self._styles.get(key, Style())
        for _ in range(_BASE_STYLES):
            if found.level or not found.base:
                break
            found = self._styles.get(found.base, Style())
        return style, found.level

    def _emit(self, text: str, level: int, *, item: str) -> None:
        if self._rows:
            self._rows[-1].add(text, level)
            return
        if level:
            self._out.mark("chapter", text, 0, level)
        is_item = bool(item) and not level
        self._out.paragraph(text, tight=self._tight and is_item and is_short(text))
        self._tight = is_item

    def _end_row(self) -> None:
        if not self._rows:
            return
        row = self._rows.pop()
        for text, level in row.paragraphs():
            is_line = " | " in text and not level
            self._emit(text, level, item=" | " if is_line else "")


def _symbol(code: str) -> str:
    """Map a symbol font's character code to Unicode; "" for those without a known meaning."""
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    return _SYMBOLS.get(number & 0xFF, "") if 0xF000 <= number <= 0xF0FF else chr(number) if number < 0xD800 else ""


_STARTS: dict[str, Callable[[_Reader], None]] = {
    "p": _Reader._begin_paragraph,
    "r": _Reader._begin_run,
    "tr": _Reader._begin_row,
    "tc": _Reader._begin_cell,
}
