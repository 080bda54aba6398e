"""Read EPUB: the files of the spine in order, with the chapters of the book's table of contents."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from longmamba_mlx.documents.formats import xmltree
from longmamba_mlx.documents.formats.archive import Archive
from longmamba_mlx.documents.formats.builder import Parsed, Refused, TextBuilder
from longmamba_mlx.documents.formats.elements import Page
from longmamba_mlx.documents.formats.markup import add_html, to_text
from longmamba_mlx.documents.formats.xmltree import attribute, local

CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_FONT_SCRAMBLING = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_MARKUP = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")
_FALLBACKS = 10  # that lead from one to the next
_FEWEST_ENTRIES = 2  # a table of contents with fewer tells less than the headings


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    kind: str
    properties: tuple[str, ...]
    fallback: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the table of contents."""

    label: str
    name: str
    fragment: str
    level: int


def read_epub(archive: Archive) -> Parsed:
    """A book's text with its chapters. Raises Refused for damaged and copy-protected books."""
    package, folder = _package(archive)
    items = {attribute(item, "id"): _item(item, folder) for item in _all(package, "item")}
    spine = [items[key] for ref in _all(package, "itemref") if (key := attribute(ref, "idref")) in items]
    spine = [_readable(item, items) for item in dict.fromkeys(spine)]
    wanted = len(spine)
    spine = [item for item in dict.fromkeys(spine) if item.name in archive.names and item.kind in _MARKUP]
    _check_protection(archive, {item.name for item in spine})
    entries = _contents(archive, package, items)
    out = TextBuilder()
    if len(spine) < wanted:
        out.note(f"{wanted - len(spine)} of {wanted} parts of the book are pictures or missing: they were not read.")
    pages: dict[str, tuple[int, Page]] = {}
    for item in spine:
        if "nav" not in item.properties:
            start = out.position
            pages[item.name] = start, add_html(to_text(archive.read(item.name), out), out)
    _mark_chapters(out, pages, entries)
    return out.finish()


def _package(archive: Archive) -> tuple[Element, str]:
    """The package file and the folder that names in it start from."""
    container = xmltree.parse(archive.open(CONTAINER))
    names = [attribute(item, "full-path") for item in _all(container, "rootfile")]
    names += sorted(name for name in archive.names if name.lower().endswith(".opf"))
    name = next((name for name in names if name in archive.names), None)
    if name is None:
        raise Refused("damaged")
    return xmltree.parse(archive.open(name)), posixpath.dirname(name)


def _item(element: Element, folder: str) -> _Item:
    properties = tuple(attribute(element, "properties").split())
    name = _resolve(folder, attribute(element, "href"))[0]
    return _Item(name, attribute(element, "media-type"), properties, attribute(element, "fallback"))


def _readable(item: _Item, items: dict[str, _Item]) -> _Item:
    """Follow a spine item's fallbacks to one that holds text; the item itself if there is none."""
    found = item
    for _ in range(_FALLBACKS):
        if found.kind in _MARKUP or found.fallback not in items:
            break
        found = items[found.fallback]
    return found if found.kind in _MARKUP else item


def _resolve(folder: str, href: str) -> tuple[str, str]:
    """A link -> (name in the archive, fragment). Names that lead outside match nothing there."""
    path, _, fragment = href.partition("#")
    return posixpath.normpath(posixpath.join(folder, unquote(path))), unquote(fragment)


def _check_protection(archive: Archive, names: set[str]) -> None:
    if _ENCRYPTION not in archive.names:
        return
    for data in _all(xmltree.parse(archive.open(_ENCRYPTION)), "EncryptedData"):
        method = next((attribute(item, "Algorithm") for item in _all(data, "EncryptionMethod")), "")
        targets = {_resolve("", attribute(item, "URI"))[0] for item in _all(data, "CipherReference")}
        if method not in _FONT_SCRAMBLING and targets & names:
            raise Refused("protected")


def _contents(archive: Archive, package: Element, items: dict[str, _Item]) -> list[_Entry]:
    """The table of contents: EPUB 3's navigation file, else EPUB 2's NCX; [] when there is none to be read."""
    spine = next(_all(package, "spine"), None)
    navigation = next((item for item in items.values() if "nav" in item.properties), None)
    ncx = items.get(attribute(spine, "toc")) if spine is not None else None
    ncx = ncx or next((item for item in items.values() if item.kind == "application/x-dtbncx+xml"), None)
    for item, entries_of in ((navigation, _navigation_entries), (ncx, _ncx_entries)):
        if item is None or item.name not in archive.names:
            continue
        try:
            root = xmltree.parse(archive.open(item.name))
        except Refused:  # a book can be read without
            continue
        if entries := list(entries_of(root, posixpath.dirname(item.name))):
            return entries
    return []


def _navigation_entries(root: Element, folder: str) -> Iterator[_Entry]:
    lists = list(_all(root, "nav"))
    nav = next((item for item in lists if attribute(item, "type") == "toc"), lists[0] if lists else None)
    if nav is not None:
        yield from _list_entries(nav, folder, 0)


def _list_entries(element: Element, folder: str, level: int) -> Iterator[_Entry]:
    for child in element:
        name = local(child.tag)
        if name == "a" and level:
            yield _Entry(
                " ".join("".join(child.itertext()).split()), *_resolve(folder, attribute(child, "href")), level
            )
        else:
            yield from _list_entries(child, folder, level + (name == "ol"))


def _ncx_entries(element: Element, folder: str, level: int = 0) -> Iterator[_Entry]:
    for child in element:
        name = local(child.tag)
        if name == "navPoint":
            label = next((text.text or "" for item in child if local(item.tag) == "navLabel" for text in item), "")
            source = next((attribute(item, "src") for item in child if local(item.tag) == "content"), "")
            yield _Entry(" ".join(label.split()), *_resolve(folder, source), level + 1)
            yield from _ncx_entries(child, folder, level + 1)
        elif name == "navMap":
            yield from _ncx_entries(child, folder, level)


def _mark_chapters(out: TextBuilder, pages: dict[str, tuple[int, Page]], entries: list[_Entry]) -> None:
    """Chapters from the table of contents, or from the headings where it is missing or points nowhere."""
    told = [
        (pages[entry.name][1].anchors.get(entry.fragment, pages[entry.name][0]), entry.label, entry.level)
        for entry in entries
        if entry.name in pages and entry.label
    ]
    if len(told) < _FEWEST_ENTRIES:
        told = [heading for _, page in pages.values() for heading in page.headings]
    for position, label, level in told:
        out.mark("chapter", label, 0, level, at=position)


def _all(element: Element, name: str) -> Iterator[Element]:
    return (item for item in element.iter() if local(item.tag) == name)
