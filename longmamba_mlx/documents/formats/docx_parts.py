"""The parts of a DOCX package beside its text: styles, notes, comments, page headers and links to other files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from longmamba_mlx.documents.formats import xmltree
from longmamba_mlx.documents.formats.archive import Archive
from longmamba_mlx.documents.formats.xmltree import attribute, local

SKIPPED = frozenset(("del", "moveFrom", "Fallback", "instrText", "delText", "rt", "pPrChange", "rPrChange"))
OUTLINE_LEVELS = tuple("012345678")  # 9 is body text
_HEADING = re.compile(r"heading ([1-9])", re.I)


@dataclass(slots=True)
class Style:
    """A paragraph style: the one it is based on, its heading level (0: none), its list and the level in it."""

    name: str = ""
    base: str = ""
    level: int = 0
    numbering: tuple[str, str] = ("", "0")


@dataclass(frozen=True, slots=True)
class Beside:
    """Content of other files of the package: notes ("footnote 3"), comments with their authors, embedded files."""

    notes: dict[str, str]
    comments: dict[str, tuple[str, str]]
    files: dict[str, str]  # relationship -> name in the archive


def styles_of(archive: Archive) -> dict[str, Style]:
    """The paragraph styles by their ids."""
    if "word/styles.xml" not in archive.names:
        return {}
    styles: dict[str, Style] = {}
    for element in xmltree.parse(archive.open("word/styles.xml")):
        if local(element.tag) != "style":
            continue
        style = styles[attribute(element, "styleId")] = Style()
        for child in element.iter():
            _describe(style, local(child.tag), attribute(child, "val"))
    return styles


def _describe(style: Style, name: str, value: str) -> None:
    if name == "name":
        style.name = value
        if match := _HEADING.fullmatch(value):
            style.level = int(match[1])
    elif name == "basedOn":
        style.base = value
    elif name == "outlineLvl" and value in OUTLINE_LEVELS:
        style.level = style.level or int(value) + 1
    elif name == "numId":
        style.numbering = (value, style.numbering[1])
    elif name == "ilvl":
        style.numbering = (style.numbering[0], value)


def notes_of(archive: Archive, kind: str) -> dict[str, str]:
    """Foot- or endnotes: "footnote 3" -> its text."""
    name = f"word/{kind}s.xml"
    if name not in archive.names:
        return {}
    found = {}
    for note in xmltree.parse(archive.open(name)):
        text = "".join(_plain(note))
        if local(note.tag) == kind and text.strip() and attribute(note, "type") in ("", "normal"):
            found[f"{kind} {attribute(note, 'id')}"] = text
    return found


def comments_of(archive: Archive) -> dict[str, tuple[str, str]]:
    """Comments by their id: text and author."""
    if "word/comments.xml" not in archive.names:
        return {}
    return {
        attribute(comment, "id"): ("".join(_plain(comment)), attribute(comment, "author"))
        for comment in xmltree.parse(archive.open("word/comments.xml"))
    }


def running_texts(archive: Archive, kind: str) -> list[str]:
    """Texts of the headers or footers, in the order of their file numbers."""
    names = [match for name in archive.names if (match := re.fullmatch(rf"word/{kind}(\d{{0,4}})\.xml", name))]
    names.sort(key=lambda match: int(match[1] or 0))
    return ["".join(_plain(xmltree.parse(archive.open(match[0])))) for match in names]


def relationships_of(archive: Archive, main: str) -> dict[str, str]:
    """The files that the main one refers to, by the names it has for them."""
    folder, name = posixpath.split(main)
    rels = f"{folder}/_rels/{name}.rels"
    if rels not in archive.names:
        return {}
    found = {}
    for element in xmltree.parse(archive.open(rels)):
        if attribute(element, "TargetMode") != "External":
            target = attribute(element, "Target")
            found[attribute(element, "Id")] = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
    return found


def _plain(element: Element) -> Iterator[str]:
    """The text of a small part, its paragraphs parted by spaces."""
    for child in element:
        name = local(child.tag)
        if name == "t":
            yield child.text or ""
        elif name in ("tab", "br", "cr"):
            yield " "
        elif name not in SKIPPED:
            yield from _plain(child)
            yield " " if name in ("p", "tc") else ""
