"""Format of the child's answer: a few plain lines, then UTF-8 text. Nothing in it is executed or unpickled."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from longmamba_mlx.documents.formats.builder import MOST_PLACES, MOST_TEXT, Parsed, Refused
from longmamba_mlx.documents.places import KINDS, Place
from longmamba_mlx.documents.sanitise import clean, one_line

_MAGIC = b"longmamba text 1\n"
_REFUSED = b"longmamba refuses "
_MOST_NOTES = 20
MOST_BYTES = 4 * MOST_TEXT + 300 * MOST_PLACES


class WireError(ValueError):
    """Raised for an answer that does not follow the format."""


def write(parsed: Parsed) -> Iterator[bytes]:
    """Parsed -> the bytes that `read` understands."""
    text = parsed.text.encode("utf-8")
    notes = parsed.notes[:_MOST_NOTES]
    yield _MAGIC + b"%d %d %d\n" % (len(parsed.marks), len(notes), len(text))
    for place in parsed.marks:
        yield f"{place.start} {place.kind} {place.number} {place.level} {place.label}\n".encode()
    for note in notes:
        yield f"{note}\n".encode()
    yield text


def refuse(refused: Refused) -> bytes:
    """Encode a refusal, which `read` raises on the other side."""
    return _REFUSED + f"{refused.code} {refused.detail}\n".encode("ascii", "replace")


def read(data: bytes) -> Parsed:
    """Decode what `write` wrote. Raises Refused, and WireError for anything else."""
    try:
        if data.startswith(_REFUSED):
            code, _, detail = data[len(_REFUSED) : 200].decode("ascii").strip().partition(" ")
            raise Refused(code, one_line(detail, 40))
        return _read(data)
    except (ValueError, IndexError) as error:
        raise WireError(str(error)) from None


def _read(data: bytes) -> Parsed:
    if not data.startswith(_MAGIC):
        raise WireError("no answer")
    position = len(_MAGIC)
    end = data.index(b"\n", position, position + 80)
    places, notes, size = map(int, data[position:end].split())
    if places > MOST_PLACES or notes > _MOST_NOTES or not 0 < size <= len(data):
        raise WireError("too much")
    text_start = len(data) - size
    if text_start <= end:
        raise WireError("too little")
    lines = data[end + 1 : text_start].decode("utf-8").split("\n")
    if len(lines) != places + notes + 1 or lines[-1]:
        raise WireError("wrong length")
    text = data[text_start:].decode("utf-8")
    if clean(text) is not text and clean(text) != text:
        raise WireError("text that is not clean")
    marks = tuple(_place(line, len(text)) for line in lines[:places])
    if any(one.start > other.start for one, other in pairwise(marks)):
        raise WireError("places out of order")
    return Parsed(text, marks, tuple(one_line(line) for line in lines[places:-1]))


def _place(line: str, length: int) -> Place:
    start, name, number, level, label = line.split(" ", 4)
    kind = next(kind for kind in KINDS if kind == name) if name in KINDS else None
    place = Place(int(start), kind or "chapter", one_line(label), int(number), int(level))
    if kind is None or not label or not 0 <= place.start <= length or place.number < 0:
        raise WireError("an impossible place")
    return place
