"""Decode text: byte order mark, declared encoding, UTF-8, UTF-16/32 without a mark, then a guess, which is noted."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from longmamba_mlx.documents.encodings import SINGLE_BYTE, codec_of, shown
from longmamba_mlx.documents.guess import escaped, guess
from longmamba_mlx.documents.sanitise import clean, last_cut

# UTF-32's mark begins with UTF-16's, so it is asked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
_BLOCK = 1 << 18
_SAMPLE = 1 << 18
_FULL_OF_NULS = "it is full of NUL bytes: binary data"
_STRAY_NULS, _MOST_NULS = 3, 1 / 20
_MOST_DAMAGE = 1 / 3  # of a text's characters beyond ASCII
_MOST_CONTROLS = 1 / 50
_CONTROL = re.compile("[\x01-\x07\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")  # logs hold ESC, manual pages BS
_LOW_CONTROL = re.compile(rb"[\x01-\x07\x0e-\x1a\x1c-\x1f]")
# An XML file, and a script or note with a line for its editor, say their encoding.
_DECLARED = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]+)|(?:[^\n]*\n)?\s*#[^\n]*?coding[:=]\s*([\w.-]+)"""
)
_FEWEST_LETTERS, _FEWEST_SPACES = 0.6, 0.02  # of the characters of a text in UTF-16


class UndecodableError(ValueError):
    """Raised for bytes that are not text in a known encoding. The message is a clause: "it is ..."."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded text; `note` is "" or a clause on what was guessed or damaged: "read as windows-1252"."""

    text: str
    note: str = ""


def encoding_note(note: str) -> str:
    """Format a `Decoded.note` as a line for the user, with the option that overrules it."""
    return f"{note[:1].upper()}{note[1:]}; --encoding NAME reads it otherwise."


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, position: int, /) -> int: ...


def decode(data: bytes, declared: str = "", asked: str = "") -> Decoded:
    """Decode bytes; the text is not cleaned yet. Raises UndecodableError.

    `declared` is the encoding that an HTML or mail file names for itself, which may be wrong; `asked` is the codec that
    the user names, and is not questioned.
    """
    if asked:
        return _with_marks(data, asked)
    mark, encoding = _marked(data)
    if not declared and (match := _DECLARED.match(data[:1024])):
        declared = (match[1] or match[2]).decode("ascii")
    found = _as_declared(data, declared) if declared and not mark else None
    if found is None:
        found = _whole(data[len(mark) :], encoding if mark else "")
    _check_controls(found.text)
    return found


def decode_clean(file: _Readable, asked: str = "") -> Decoded:
    """A text file, from its position 0 to its end, decoded and cleaned block by block: the bytes are never all in
    memory, unless they are in none of Unicode's encodings. Raises UndecodableError.
    """
    if not asked:
        try:
            text = "".join(clean_blocks(file))
        except UnicodeDecodeError:
            file.seek(0)
        else:
            return Decoded(text, unmarked_note(file))
    found = decode(file.read(), asked=asked)
    return Decoded(clean(found.text), found.note)


def clean_blocks(file: _Readable) -> Iterator[str]:
    """The pieces of `decode_clean`, one after the other; UnicodeDecodeError where no encoding of Unicode fits."""
    return (text for text, _ in located_blocks(file))


def located_blocks(file: _Readable) -> Iterator[tuple[str, int]]:
    """Yield the pieces of `clean_blocks`, each with its byte offset, from which `clean_between` returns it again."""
    encoding, position = _encoding_of(file)
    for raw in _cut(_blocks(file, encoding)):
        yield clean(raw), position
        position += len(raw.encode(encoding))


def clean_between(file: _Readable, start: int, end: int) -> str:
    """Return the clean text of bytes start:end, both offsets of `located_blocks`. Raises ValueError."""
    encoding, _ = _encoding_of(file)
    file.seek(start)
    return clean(file.read(end - start).decode(encoding))


def unmarked_note(file: _Readable) -> str:
    """What `Decoded.note` says of a file that `clean_blocks` reads."""
    encoding, begin = _encoding_of(file)
    return f"read as {shown(encoding.replace('-', '_'))}" if encoding != "utf-8" and not begin else ""


def _encoding_of(file: _Readable) -> tuple[str, int]:
    """Return the file's Unicode encoding and the byte at which its text begins, and seek there.

    Raises UnicodeDecodeError for a file that is in none.
    """
    file.seek(0)
    head = file.read(_SAMPLE)
    mark, encoding = _marked(head)
    if not mark:
        if escaped(head):
            raise UnicodeDecodeError("utf-8", b"", 0, 0, "an encoding of its own")
        encoding = _unmarked(head, whole=len(head) < _SAMPLE) or encoding
    file.seek(len(mark))
    return encoding, len(mark)


def _marked(head: bytes) -> tuple[bytes, str]:
    return next((pair for pair in _MARKS if head.startswith(pair[0])), (b"", "utf-8"))


def _unmarked(data: bytes, *, whole: bool) -> str | None:
    """Detect UTF-16 or UTF-32 without a byte order mark, from NULs and control bytes."""
    sample = data[:_SAMPLE]
    controls, nuls = len(_LOW_CONTROL.findall(sample)), sample.count(0)
    many = _has_many_nuls(nuls, len(sample)) or (nuls and nuls * 3 >= len(sample))
    if not many and controls <= _MOST_CONTROLS * len(sample):
        return None
    best = max(_WIDE, key=lambda encoding: _likeness(sample, encoding, whole=whole))
    return best if _likeness(sample, best, whole=whole) > 0 else None


def _likeness(sample: bytes, encoding: str, *, whole: bool) -> float:
    """Score a wide encoding: share of letters from few Unicode blocks, plus spaces; 0 if the sample cannot be text."""
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample, final=whole)
    except UnicodeDecodeError:
        return 0.0
    if not text or _share(_CONTROL, text) > _MOST_CONTROLS or text.count("\x00") * 20 > len(text):
        return 0.0
    letters = sum(1 for character in text if character.isalnum() or character.isspace()) / len(text)
    if letters < _FEWEST_LETTERS or any(ord(character) == 0xFFFE for character in text):
        return 0.0
    blocks = len({ord(character) >> 7 for character in text})
    spaces = sum(map(text.count, " \n\u3000\u3002\uff0c")) / len(text)
    ascii_share = len(text.encode("ascii", "ignore")) / len(text)
    return letters / blocks + spaces + ascii_share if spaces > _FEWEST_SPACES or blocks <= 2 else 0.0


def _blocks(file: _Readable, encoding: str) -> Iterator[str]:
    """The file's characters, in pieces. Raises UnicodeDecodeError, UndecodableError."""
    decoder = codecs.getincrementaldecoder(encoding)()
    nuls = total = 0
    while block := file.read(_BLOCK):
        nuls, total = nuls + block.count(0), total + len(block)
        text = decoder.decode(block)
        if total == len(block):
            _check_controls(text)
        yield text
    yield decoder.decode(b"", final=True)
    if encoding == "utf-8" and _has_many_nuls(nuls, total):
        raise UndecodableError(_FULL_OF_NULS)


def _cut(pieces: Iterable[str]) -> Iterator[str]:
    """Re-cut pieces so that cleaning each alone equals cleaning the whole."""
    held = ""
    for piece in pieces:
        held += piece
        if stop := last_cut(held):
            yield held[:stop]
            held = held[stop:]
    yield held


def _has_many_nuls(nuls: int, total: int) -> bool:
    return nuls > _STRAY_NULS and nuls > total * _MOST_NULS


def _share(pattern: re.Pattern[str], text: str) -> float:
    return len(pattern.findall(text)) / max(len(text), 1)


def _check_controls(text: str) -> None:
    if _share(_CONTROL, text[:_SAMPLE]) > _MOST_CONTROLS or (text and not text.strip("\x00")):
        raise UndecodableError("it is full of control characters: binary data")


def _as_declared(data: bytes, declared: str) -> Decoded | None:
    """Decode with the declared encoding; None if it is unknown or does not fit."""
    try:
        encoding = codec_of(declared)
        if encoding.startswith(("utf_16", "utf_32")):  # it was read as ASCII just now
            encoding = "utf_8"
        if encoding in SINGLE_BYTE and not data.isascii() and _is_utf8(data):  # which no such text is by chance
            encoding = "utf_8"
        found = _with_marks(data, encoding)
    except (LookupError, ValueError, OSError):
        return None
    return found if _damage(found.text) <= _MOST_DAMAGE / 3 else None


def _with_marks(data: bytes, encoding: str) -> Decoded:
    """Decode, replacing invalid bytes by U+FFFD and noting how many."""
    text = data.decode(encoding, "replace")
    damage = text.count("\ufffd")
    unit = "place is" if damage == 1 else "places are"
    return Decoded(text, f"{damage:,} {unit} not {shown(encoding)}, shown as \ufffd" if damage else "")


def _whole(data: bytes, encoding: str) -> Decoded:
    """Decode a whole text; `encoding` is that of its byte order mark, or ""."""
    if encoding:
        return _strictly(data, encoding)
    if codec := escaped(data):
        return Decoded(data.decode(codec), f"read as {shown(codec)}")
    if unmarked := _unmarked(data, whole=True):
        return Decoded(_strictly(data, unmarked).text, f"read as {shown(unmarked.replace('-', '_'))}")
    if _has_many_nuls(data.count(0), len(data)):
        raise UndecodableError(_FULL_OF_NULS)
    try:
        return Decoded(data.decode("utf-8"))
    except UnicodeDecodeError:
        return _damaged_utf8(data) or _guessed(data)


def _strictly(data: bytes, encoding: str) -> Decoded:
    try:
        return Decoded(data.decode(encoding))
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise UndecodableError(f"it is marked as {encoding[:6].upper()} but is not") from None
        return _with_marks(data, "utf_8")


def _damaged_utf8(data: bytes) -> Decoded | None:
    """Decode UTF-8 with a few invalid bytes (a log cut within a character); None if too many are invalid."""
    found = _with_marks(data, "utf_8")
    return found if _damage(found.text) <= _MOST_DAMAGE else None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _damage(text: str) -> float:
    """Share of replacement characters (U+FFFD) among the characters beyond ASCII."""
    return text.count("\ufffd") / max(len(text) - len(text.encode("ascii", "ignore")), 1)


def _guessed(data: bytes) -> Decoded:
    codec = guess(data)
    if codec is None:
        raise UndecodableError("its encoding cannot be recognised")
    found = _with_marks(data, codec)
    note = f"read as {shown(codec)}"
    return Decoded(found.text, f"{note}; {found.note}" if found.note else note)
