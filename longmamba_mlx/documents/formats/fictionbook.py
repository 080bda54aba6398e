"""Read FictionBook (FB2): title, author, and the sections with their titles as chapters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO
from xml.etree.ElementTree import Element

from longmamba_mlx.documents.formats import xmltree
from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.xmltree import attribute, local

_LINES = frozenset(("p", "v", "subtitle", "text-author", "date", "td", "th"))
_SKIPPED = frozenset(("binary", "document-info", "publish-info", "custom-info", "src-title-info", "stylesheet"))
_DESCRIBED = ("author", "book-title", "annotation", "date", "translator")


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A book's text with its chapters. Raises Refused."""
    return read_stream(file)


def read_stream(stream: xmltree.Readable) -> Parsed:
    """Read a FictionBook from a stream, such as an entry of an archive."""
    out = TextBuilder()
    reader = _Reader(out)
    for start, element in xmltree.events(stream):
        reader.begin(element) if start else reader.end(element)
    if not reader.is_whole:
        raise Refused("damaged")
    return out.finish()


class _Reader:
    """Reads the elements as a stream and frees each when it is written."""

    def __init__(self, out: TextBuilder) -> None:
        self._out = out
        self._path: list[str] = []
        self._row: list[str] = []
        self._title: list[str] = []
        self._verse = False

    @property
    def is_whole(self) -> bool:
        return not self._path

    def begin(self, element: Element) -> None:
        self._path.append(local(element.tag))

    def end(self, element: Element) -> None:
        name = self._path.pop()
        if name in _SKIPPED or not _SKIPPED.isdisjoint(self._path):
            element.clear()
            return
        if name == "title":
            self._end_title()
        elif name == "tr":
            self._out.paragraph(" | ".join(self._row))
            self._row.clear()
        elif name in _LINES and "title-info" not in self._path[:-1]:
            self._line(name, element)
        elif "title-info" in self._path:
            self._describe(name, element)
        elif name == "image" and (words := attribute(element, "alt") or attribute(element, "title")):
            self._out.paragraph(f"[{words}]")
        if name in (*_LINES, "title", "section", "tr"):
            tail, element.tail = element.tail, None
            element.clear()
            element.tail = tail

    def _line(self, name: str, element: Element) -> None:
        text = " ".join("".join(_words(element)).split())
        if "title" in self._path:
            self._title.append(text)
        elif name in ("td", "th"):
            self._row.append(text)
        else:
            self._out.paragraph(text, tight=self._verse and name == "v")
            self._verse = name == "v"

    def _end_title(self) -> None:
        label = " ".join(line for line in self._title if line)
        self._title.clear()
        if label and "section" in self._path:
            self._out.mark("chapter", label, 0, self._path.count("section"))
        self._out.paragraph(label)
        self._verse = False

    def _describe(self, name: str, element: Element) -> None:
        if self._path[-1] == "title-info" and name in _DESCRIBED:
            self._out.paragraph(" ".join(" ".join(element.itertext()).split()))


def _words(element: Element) -> Iterator[str]:
    """The text of a line; a link to a note is in brackets."""
    is_note = local(element.tag) == "a" and attribute(element, "type") == "note"
    text = element.text or ""
    yield f"[{text.strip('[]')}]" if is_note and text.strip("[] ") else text
    for child in element:
        yield from _words(child)
        yield child.tail or ""
