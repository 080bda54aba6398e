"""Bytes -> text: byte order marks, UTF-8, then a guess with a floor below which nothing is guessed."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from longmamba_mlx.documents.sanitise import clean

# UTF-32's mark begins with UTF-16's, so it is asked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Encodings that people's text files are in. A longer list would find the right one less often.
_CANDIDATES = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257"),
    *("koi8_r", "mac_roman", "cp932", "euc_jp", "gb18030", "big5", "cp949", "tis_620"),
)
# What web pages declare besides.
_DECLARED = (
    *("iso8859_2", "iso8859_3", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_8", "iso8859_9"),
    *("iso8859_10", "iso8859_13", "iso8859_14", "iso8859_15", "iso8859_16", "cp1258", "koi8_u", "utf_8"),
    *("shift_jis", "gbk", "gb2312", "euc_kr", "iso2022_jp", "big5hkscs", "cp866", "cp437", "cp850"),
)
_UNICODE = ("utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be", "latin_1", "ascii")
_KNOWN = frozenset(name.replace("-", "_") for name in (*_CANDIDATES, *_DECLARED))
_LINE_ENDS = "\r\n\f\x85\u2028\u2029"
_BLOCK = 1 << 18
_SAMPLE = 1 << 18
_FULL_OF_NULS = "it is full of NUL bytes: binary data, or UTF-16 without its mark"
_MOST_NULS = 1 / 1000
_MOST_DAMAGE = 1 / 1000
_MOST_CONTROLS = 1 / 50
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")  # ESC is common in logs
_MOST_CHAOS = 0.1  # charset-normalizer's share of improbable characters; its own limit is 0.2


class UndecodableError(ValueError):
    """These bytes are no text that can be told. The message is a clause: "it is ..."."""


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, position: int, /) -> int: ...


def decode(data: bytes, declared: str = "") -> str:
    """Bytes -> text, not yet cleaned; `declared` is the encoding that an HTML file names. Raises UndecodableError."""
    mark, encoding = _marked(data)
    text = _as_declared(data, declared) if not mark else None
    if text is None:
        text = _whole(data[len(mark) :], encoding)
    _check_controls(text)
    return text


def decode_clean(file: _Readable) -> str:
    """A text file, from its position 0 to its end, decoded and cleaned block by block: the bytes are never all in
    memory, unless they are in none of Unicode's encodings. Raises UndecodableError.
    """
    try:
        return "".join(clean_blocks(file))
    except UnicodeDecodeError:
        file.seek(0)
        return clean(decode(file.read()))


def clean_blocks(file: _Readable) -> Iterator[str]:
    """The pieces of `decode_clean`, one after the other; UnicodeDecodeError where no encoding of Unicode fits."""
    return (text for text, _ in located_blocks(file))


def located_blocks(file: _Readable) -> Iterator[tuple[str, int]]:
    """The pieces of `clean_blocks`, each with the byte at which it begins: there `clean_between` gives it again."""
    encoding, position = _encoding_of(file)
    for raw in _cut(_blocks(file, encoding)):
        yield clean(raw), position
        position += len(raw.encode(encoding))


def clean_between(file: _Readable, start: int, end: int) -> str:
    """The clean text of bytes start:end, which are where pieces of `located_blocks` begin. Raises ValueError."""
    encoding, _ = _encoding_of(file)
    file.seek(start)
    return clean(file.read(end - start).decode(encoding))


def _encoding_of(file: _Readable) -> tuple[str, int]:
    """The encoding of Unicode that a file is marked with, else UTF-8, and where its text begins; goes there."""
    file.seek(0)
    mark, encoding = _marked(file.read(4))
    file.seek(len(mark))
    return encoding, len(mark)


def preload() -> None:
    """Have every encoding in memory, for a process that may open no files later."""
    import charset_normalizer.md  # noqa: F401

    for name in (*_CANDIDATES, *_DECLARED, *_UNICODE):
        codecs.lookup(name)


def _marked(head: bytes) -> tuple[bytes, str]:
    return next((pair for pair in _MARKS if head.startswith(pair[0])), (b"", "utf-8"))


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
    if encoding == "utf-8" and nuls > total * _MOST_NULS:
        raise UndecodableError(_FULL_OF_NULS)


def _cut(pieces: Iterable[str]) -> Iterator[str]:
    """All of a text in pieces: each is cut before a character that is cleaned alone, whatever stands beside it."""
    held = ""
    for piece in pieces:
        held += piece
        stop = max(len(held.rstrip(_LINE_ENDS)) - 1, 0)
        yield held[:stop]
        held = held[stop:]
    yield held


def _check_controls(text: str) -> None:
    if len(_CONTROL.findall(text[:_SAMPLE])) > min(len(text), _SAMPLE) * _MOST_CONTROLS:
        raise UndecodableError("it is full of control characters: binary data")


def _as_declared(data: bytes, declared: str) -> str | None:
    """The text in the encoding declared, if it is one of `preload`'s and right."""
    if declared in ("iso-8859-1", "latin-1", "latin1", "ascii", "us-ascii"):
        declared = "cp1252"  # as browsers take them
    try:
        encoding = codecs.lookup(declared).name.replace("-", "_") if declared else ""
        return data.decode(encoding) if encoding in _KNOWN else None
    except (LookupError, UnicodeDecodeError, OSError):
        return None


def _whole(data: bytes, encoding: str) -> str:
    if encoding == "utf-8" and data.count(0) > len(data) * _MOST_NULS:
        raise UndecodableError(_FULL_OF_NULS)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise UndecodableError(f"it is marked as {encoding[:6].upper()} but is not") from None
    return _damaged_utf8(data) or _guess(data)


def _damaged_utf8(data: bytes) -> str | None:
    """A long UTF-8 text with a few broken bytes (a log cut within a character) is still UTF-8."""
    text = data.decode("utf-8", errors="replace")
    damage = text.count("\ufffd")
    beyond_ascii = len(data) - len(text) - damage  # grows with every sound character of two bytes or more
    return text if damage <= len(data) * _MOST_DAMAGE and beyond_ascii > 10 * damage else None


def _guess(data: bytes) -> str:
    import charset_normalizer

    sample = data[:_SAMPLE]
    if len(data) > _SAMPLE:
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    matches = [
        match
        for match in charset_normalizer.from_bytes(sample, cp_isolation=list(_CANDIDATES))
        if match.encoding in _CANDIDATES and match.chaos <= _MOST_CHAOS
    ]
    if not matches:
        raise UndecodableError("its encoding cannot be told")
    best = matches[0]
    for match in matches:
        # Many Western encodings agree on short texts; the commonest then is the likeliest.
        if match.encoding == "cp1252" and (match.chaos, -match.coherence) <= (best.chaos, -best.coherence):
            best = match
    try:
        return data.decode(best.encoding)
    except UnicodeDecodeError:
        raise UndecodableError("its encoding cannot be told") from None
