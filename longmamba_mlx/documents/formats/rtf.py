"""Read rich text (RTF): paragraphs, headings, tables, notes, headers and comments, in one pass over the tokens."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import IO, Any

from longmamba_mlx.documents.encodings import codec_of
from longmamba_mlx.documents.formats.asides import Notes, running
from longmamba_mlx.documents.formats.builder import Parsed, TextBuilder
from longmamba_mlx.documents.formats.rows import Row, is_short
from longmamba_mlx.documents.formats.rtf_words import ASIDES, CHARACTERS, CHARSETS, SKIPPED, SYMBOLS, TEXT

_TOKEN = re.compile(
    rb"\\([a-zA-Z]{1,32})(-?\d{1,10})?[ ]?|\\'([0-9a-fA-F]{2})|\\([^a-zA-Z])|([{}])|[\r\n]+|([^\\{}\r\n]+)|\\"
)
_SECTIONS = ("par", "sect", "page", "column", "softpage")


@dataclass(frozen=True, slots=True)
class _Group:
    """State that a group's closing brace restores."""

    kind: str = "text"  # text, skip, fonts, styles, or an aside's
    hidden: bool = False
    fallback: int = 1  # characters after \u that are for readers who know no Unicode
    font: str = ""


@dataclass(slots=True)
class _Flow:
    """Where text goes: the document, or an aside while it is open."""

    text: list[str] = field(default_factory=list)
    style: str = ""
    level: int = 0
    in_table: bool = False


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A rich text document's text, its headings as chapters. Raises Refused."""
    out = TextBuilder()
    _Reader(out, encoding).read(file.read())
    return out.finish()


class _Reader:
    def __init__(self, out: TextBuilder, encoding: str) -> None:
        self._out, self._asked, self._default = out, encoding, "cp1252"
        self._group, self._groups = _Group(), list[_Group]()
        self._flow, self._flows = _Flow(), list[_Flow]()
        self._fonts: dict[str, str] = {}
        self._levels: dict[str, int] = {}  # heading levels of styles
        self._bytes = bytearray()  # not decoded yet
        self._skip = 0
        self._notes, self._author = Notes(), ""
        self._headers: list[str] = []
        self._footers: list[str] = []
        self._rows: dict[int, Row] = {}  # open table rows by depth: 1, and 2 for tables within cells
        self._tight = False

    def read(self, data: bytes) -> None:
        position = max(data.find(b"{"), 0)
        while match := _TOKEN.match(data, position):
            position = match.end()
            if match[1] == b"bin":
                position += max(int(match[2] or 0), 0)
            elif not self._take(match):
                break
        self._flush()
        while self._flows:
            self._end_aside()
        self._end_paragraph()
        self._end_row(1)
        for line in running("Footer", self._footers):
            self._out.paragraph(line)

    def _take(self, token: re.Match[bytes]) -> bool:
        """Process a token; return whether the document continues."""
        word, number, code, symbol, brace, text = token.groups()
        if code is not None or text is not None:
            self._add_bytes(text or bytes((int(code, 16),)))
            return True
        self._flush(keep_skip=word == b"u")
        if word is not None:
            self._control(word.decode("ascii"), int(number) if number else None)
        elif brace == b"{":
            self._groups.append(self._group)
        elif brace == b"}":
            return self._end_group()
        elif symbol is not None:
            self._symbol(symbol)
        return True

    # ------------------------------------------------------------------------------------------------ characters

    def _add_bytes(self, data: bytes) -> None:
        if self._skip:
            dropped = min(self._skip, len(data))
            self._skip -= dropped
            data = data[dropped:]
        self._bytes += data

    def _flush(self, *, keep_skip: bool = False) -> None:
        """Decode the bytes since the last control word: those of one character may be written in two ways."""
        if self._bytes:
            codec = self._asked or self._fonts.get(self._group.font) or self._default
            self._write(self._bytes.decode(codec, "replace"))
            self._bytes.clear()
        if not keep_skip:
            self._skip = 0

    def _write(self, text: str) -> None:
        if self._group.kind not in ("skip", "fonts", "styles") and not self._group.hidden:
            self._flow.text.append(text)

    def _symbol(self, symbol: bytes) -> None:
        if symbol == b"*":
            self._group = replace(self._group, kind="skip") if self._group.kind == "text" else self._group
        elif symbol in b"\r\n":
            self._end_paragraph()
        else:
            self._write(SYMBOLS.get(symbol, ""))

    # ---------------------------------------------------------------------------------------------------- groups

    def _end_group(self) -> bool:
        """Close a group; return whether it was not the outermost."""
        before = self._groups.pop() if self._groups else _Group()
        if self._group.kind in ("note", "comment", "author", "header", "footer") and before.kind != self._group.kind:
            self._end_aside()
        self._group = before
        return bool(self._groups)

    def _begin_aside(self, kind: str) -> None:
        self._group = _Group(kind, font=self._group.font)
        self._flows.append(self._flow)
        self._flow = _Flow()

    def _end_aside(self) -> None:
        text, kind = "".join(self._flow.text), self._group.kind
        self._flow = self._flows.pop()
        if kind == "author":
            self._author = text
        elif kind == "comment":
            self._notes.comment(text, self._author)
        elif kind == "note":
            self._flow.text.append(self._notes.refer(text))
        elif kind == "header":
            for line in running("Header", [text]):
                if line not in self._headers:
                    self._headers.append(line)
                    self._out.paragraph(line)
        else:
            self._footers.append(text)

    # --------------------------------------------------------------------------------------------- control words

    def _control(self, name: str, value: int | None) -> None:
        kind = self._group.kind
        if name in ASIDES and kind in ("text", "skip"):
            if ASIDES[name] != "skip":
                self._begin_aside(ASIDES[name])
        elif name in ("fonttbl", "stylesheet"):
            self._group = replace(self._group, kind="fonts" if name == "fonttbl" else "styles")
        elif name in SKIPPED:
            self._group = replace(self._group, kind="skip")
        elif name in TEXT:
            outer = next((group.kind for group in reversed(self._groups) if group.kind != "skip"), "text")
            self._group = replace(self._group, kind=outer if outer not in ("fonts", "styles") else "skip")
        elif kind == "fonts":
            self._define_font(name, value)
        elif kind == "styles":
            self._define_style(name, value)
        elif name == "u" and value is not None:
            self._write(chr(value % 0x10000))
            self._skip = self._group.fallback
        elif name in CHARACTERS:
            self._write(CHARACTERS[name])
        else:
            self._format(name, value)

    def _define_font(self, name: str, value: int | None) -> None:
        if name == "f":
            self._group = replace(self._group, font=str(value))
        elif name == "fcharset" and value in CHARSETS:
            self._fonts.setdefault(self._group.font, CHARSETS[value] if value else self._default)
        elif name == "cpg":
            self._fonts[self._group.font] = _code_page(value, self._default)

    def _define_style(self, name: str, value: int | None) -> None:
        if name == "s":
            self._flow.style = str(value)
        elif name == "outlinelevel" and value is not None and 0 <= value <= 8:
            self._levels[self._flow.style] = value + 1

    def _format(self, name: str, value: int | None) -> None:
        if change := _CHANGES.get(name):
            self._group = replace(self._group, **change(value))
        elif set_up := _SET_UPS.get(name):
            set_up(self, value)
        elif (action := _ACTIONS.get(name)) and self._group.kind != "skip":
            action(self)

    def _set_level(self, value: int | None) -> None:
        if value is not None and 0 <= value <= 8:
            self._flow.level = value + 1

    def _set_style(self, value: int | None) -> None:
        self._flow.style = str(value)

    def _set_code_page(self, value: int | None) -> None:
        self._default = _code_page(value, self._default)

    def _set_in_table(self, value: int | None) -> None:
        self._flow.in_table = True

    def _reset_paragraph(self, value: int | None) -> None:
        self._flow.style, self._flow.level, self._flow.in_table = "", 0, False

    # ------------------------------------------------------------------------------------------------ paragraphs

    def _end_paragraph(self) -> None:
        if self._flows:
            self._flow.text.append("\n")
            return
        text = _joined(self._flow.text).strip(" \n")
        self._flow.text.clear()
        level = self._flow.level or self._levels.get(self._flow.style, 0)
        if text.strip():
            self._emit(text, level)
        for line in self._notes.take():
            self._emit(line, 0)

    def _emit(self, text: str, level: int) -> None:
        if self._flow.in_table:
            self._rows.setdefault(1, Row()).add(text, level)
            return
        self._end_row(1)
        if level:
            self._out.mark("chapter", text, 0, level)
        self._out.paragraph(text)
        self._tight = False

    def _end_cell(self, depth: int) -> None:
        if self._flows:
            self._flow.text.append(" ")
            return
        row = self._rows.setdefault(depth, Row())
        text = _joined(self._flow.text).strip(" \n")
        self._flow.text.clear()
        for line in (text, *self._notes.take()):
            if line.strip():
                row.add(line)
        row.begin_cell()

    def _end_row(self, depth: int) -> None:
        row = self._rows.pop(depth, None)
        if row is None or self._flows:
            return
        row.drop_empty_end()
        for text, level in row.paragraphs():
            if depth > 1:
                self._rows.setdefault(1, Row()).add(text, level)
                continue
            if level:
                self._out.mark("chapter", text, 0, level)
            self._out.paragraph(text, tight=self._tight and " | " in text and is_short(text))
            self._tight = " | " in text


# What a control word changes of its group, sets up, and ends.
_CHANGES: dict[str, Callable[[int | None], dict[str, Any]]] = {
    **dict.fromkeys(("v", "deleted", "htmlrtf"), lambda value: {"hidden": value != 0}),
    "plain": lambda value: {"hidden": False},
    "f": lambda value: {"font": str(value)},
    "uc": lambda value: {"fallback": max(value or 0, 0)},
}
_SET_UPS: dict[str, Callable[[_Reader, int | None], None]] = {
    "ansicpg": _Reader._set_code_page,
    "mac": lambda reader, value: reader._set_code_page(10000),
    "pc": lambda reader, value: reader._set_code_page(437),
    "pca": lambda reader, value: reader._set_code_page(850),
    "s": _Reader._set_style,
    "outlinelevel": _Reader._set_level,
    "pard": _Reader._reset_paragraph,
    "intbl": _Reader._set_in_table,
}
_ACTIONS: dict[str, Callable[[_Reader], None]] = {
    **dict.fromkeys(_SECTIONS, _Reader._end_paragraph),
    "cell": lambda reader: reader._end_cell(1),
    "nestcell": lambda reader: reader._end_cell(2),
    "row": lambda reader: reader._end_row(1),
    "nestrow": lambda reader: reader._end_row(2),
}


def _code_page(number: int | None, otherwise: str) -> str:
    try:
        return codec_of(f"cp{number}")
    except LookupError:
        return {65001: "utf_8", 10000: "mac_roman", 10007: "mac_cyrillic"}.get(number or 0, otherwise)


def _joined(pieces: list[str]) -> str:
    """Text, its characters beyond U+FFFF made of the two halves that \\u gives."""
    return "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
