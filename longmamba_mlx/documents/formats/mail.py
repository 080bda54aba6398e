"""Read mail: the main headers and the text of a message (.eml, .mht, .emlx) or of each in a mailbox (mbox)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message
from email.parser import BytesParser
from typing import IO

from longmamba_mlx.documents.decode import UndecodableError, decode, encoding_note
from longmamba_mlx.documents.formats.builder import Parsed, TextBuilder
from longmamba_mlx.documents.formats.markup import add_html, to_text
from longmamba_mlx.documents.sanitise import one_line

_SHOWN = ("From", "To", "Cc", "Date", "Subject")
_ENVELOPE = re.compile(rb"^From \S{1,200} [^\r\n]{0,200}\d{4} *\r?\n(?=[\w-]{1,70}:)", re.M)
_EMLX = re.compile(rb"(\d{1,12}) *\r?\n")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
_MOST_DEPTH = 20  # messages within messages
_MOST_NAMED = 5  # attachments told by name
_FULLER = 2  # times the letters: then the HTML version says more than the plain one


def read(file: IO[bytes], encoding: str = "") -> Parsed:
    """A message or a mailbox; attached texts and messages too. Raises Refused."""
    out = TextBuilder()
    reader = _Reader(out, encoding)
    messages = list(_messages(file.read()))
    for data in messages:
        message = BytesParser().parsebytes(data)
        if len(messages) > 1:
            out.mark("chapter", _header(message, "Subject") or "(no subject)", 0, 1)
        reader.add(message)
    reader.tell()
    return out.finish()


def _messages(data: bytes) -> Iterator[bytes]:
    if match := _EMLX.match(data):  # Apple Mail: the length, the message, a property list
        yield data[match.end() : match.end() + int(match[1])]
        return
    starts = [match.span() for match in _ENVELOPE.finditer(data)]
    if not starts or data[: starts[0][0]].strip():
        yield data
        return
    ends = [begin for begin, _ in starts[1:]] + [len(data)]
    for (_, begin), end in zip(starts, ends, strict=True):
        yield re.sub(rb"(?m)^>(>*From )", rb"\1", data[begin:end])


def _header(message: Message, name: str) -> str:
    """Return a header's value with its encoded words decoded."""
    value = message.get(name)
    if value is None:
        return ""
    words = ""
    try:
        for piece, charset in decode_header(str(value)):
            words += piece if isinstance(piece, str) else decode(piece, charset or "").text
    except (ValueError, LookupError):
        words = str(value)
    return one_line(words, 2000)


class _Reader:
    def __init__(self, out: TextBuilder, encoding: str) -> None:
        self._out, self._encoding = out, encoding
        self._left: list[str] = []  # attachments that are not read
        self._headers = 0

    def add(self, message: Message, depth: int = 0) -> None:
        """A message: its headers as lines, then its parts."""
        shown = [f"{name}: {value}" for name in _SHOWN if (value := _header(message, name))]
        self._headers += sum(name.title() not in _SHOWN for name in message)
        self._out.paragraph("\n".join(shown))
        self._add_part(message, depth)

    def tell(self) -> None:
        """Note what was left out."""
        if self._left:
            names = ", ".join(self._left[:_MOST_NAMED]) + (", …" if len(self._left) > _MOST_NAMED else "")
            self._out.note(f"{len(self._left)} attachments or pictures were not read: {names}")
        if self._headers:
            self._out.note(f"{self._headers} technical header lines were left out.")

    def _add_part(self, part: Message, depth: int) -> None:
        kind = part.get_content_type()
        parts = part.get_payload() if part.is_multipart() else []
        inner = [item for item in parts if isinstance(item, Message)] if isinstance(parts, list) else []
        if depth > _MOST_DEPTH:
            self._left.append(kind)
        elif kind == "multipart/alternative" and inner:
            self._add_part(self._fullest(inner), depth + 1)
        elif kind.startswith("message/") and inner:
            self.add(inner[0], depth + 1)
        elif inner:
            for item in inner:
                self._add_part(item, depth + 1)
        elif kind.startswith("text/") or kind == "message/rfc822":
            self._add_text(part, kind)
        else:
            self._left.append(one_line(part.get_filename() or kind, 60))

    def _add_text(self, part: Message, kind: str) -> None:
        data, charset = _payload(part), part.get_content_charset() or ""
        if name := one_line(part.get_filename() or "", 100):
            self._out.paragraph(f"[Attachment: {name}]")
        if kind == "text/html":
            add_html(to_text(data, self._out, self._encoding, charset), self._out)
            return
        try:
            decoded = decode(data, charset, self._encoding)
        except UndecodableError as error:
            self._left.append(f"{name or kind} ({error})")
            return
        if decoded.note:
            self._out.note(encoding_note(decoded.note))
        text = decoded.text.replace("\r\n", "\n")
        if str(part.get_param("format", "")).lower() == "flowed":
            text = _unwrapped(text, keep_space=str(part.get_param("delsp", "")).lower() != "yes")
        for paragraph in re.split(r"\n[ \t]*\n", text):
            self._out.paragraph(paragraph)

    def _fullest(self, versions: list[Message]) -> Message:
        """Choose among alternatives: the plain text, unless another holds much more text."""
        plain = next((item for item in versions if item.get_content_type() == "text/plain"), None)
        others = [item for item in versions if item is not plain]
        if plain is None or not others:
            return others[-1] if plain is None else plain
        return others[-1] if _letters(others[-1], self._encoding) > _FULLER * _letters(plain, self._encoding) else plain


def _letters(part: Message, encoding: str) -> int:
    """How many letters a part of a message shows."""
    out = TextBuilder()
    reader = _Reader(out, encoding)
    reader._add_part(part, 1)
    return sum(map(str.isalnum, out.text))


def _payload(part: Message) -> bytes:
    payload = part.get_payload()
    if str(part.get("Content-Transfer-Encoding", "")).strip().lower() == "base64" and isinstance(payload, str):
        letters = _NOT_BASE64.sub("", payload)
        part.set_payload(letters[: len(letters) - (len(letters) % 4 == 1)])  # one that was cut off is no byte
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _unwrapped(text: str, *, keep_space: bool) -> str:
    """Join lines that end with a space to the next one (RFC 3676, format=flowed)."""
    text = re.sub(r"(?m)^-- $", "--", text)
    return re.sub(r"(?m)(?<=\S) \n(?=[^\s>])", " " if keep_space else "", text)
