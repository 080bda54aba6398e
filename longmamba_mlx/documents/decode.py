"""Bytes -> text: byte order marks, UTF-8, then a guess with a floor below which nothing is guessed."""

from __future__ import annotations

import codecs
import re

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
_SAMPLE = 1 << 18
_MOST_NULS = 1 / 1000
_MOST_DAMAGE = 1 / 1000
_MOST_CONTROLS = 1 / 50
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")  # ESC is common in logs
_MOST_CHAOS = 0.1  # charset-normalizer's share of improbable characters; its own limit is 0.2


class UndecodableError(ValueError):
    """These bytes are no text that can be told. The message is a clause: "it is ..."."""


def decode(data: bytes) -> str:
    """Decode a text file's bytes. Raises UndecodableError."""
    text = _decode(data)
    if len(_CONTROL.findall(text[:_SAMPLE])) > min(len(text), _SAMPLE) * _MOST_CONTROLS:
        raise UndecodableError("it is full of control characters: binary data")
    return text


def _decode(data: bytes) -> str:
    mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))
    data = data[len(mark) :]
    if encoding == "utf-8" and data.count(0) > len(data) * _MOST_NULS:
        raise UndecodableError("it is full of NUL bytes: binary data, or UTF-16 without its mark")
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
