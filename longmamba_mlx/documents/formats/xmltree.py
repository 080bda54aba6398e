"""Parse untrusted XML: no entities, no external files, bounded depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from longmamba_mlx.documents.formats.builder import Refused

MOST_DEPTH = 500


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def parse(stream: Readable) -> Element:
    """Parse a small XML file into a tree. Raises Refused when it is not XML or declares entities."""
    root = None
    for start, element in events(stream):
        root = element if start and root is None else root
    if root is None:
        raise Refused("damaged")
    return root


def events(stream: Readable) -> Iterator[tuple[bool, Element]]:
    """Yield (True, element) at an element's start and (False, element) at its end, when it is complete."""
    depth = 0
    try:
        for event, element in ElementTree.iterparse(stream, events=("start", "end")):
            depth += 1 if event == "start" else -1
            if depth > MOST_DEPTH:
                raise Refused("bomb")
            yield event == "start", element
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise Refused("bomb" if isinstance(error, DefusedXmlException) else "damaged") from None


def local(tag: object) -> str:
    """A tag or attribute name without its namespace; "" for comments."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str, default: str = "") -> str:
    """An attribute by its name, whatever its namespace."""
    return next((value for key, value in element.attrib.items() if local(key) == name), default)
