"""Text from documents, models and file names, made safe to show: no control codes reach a terminal.

Textual, rich and plain `print` pass escape sequences on (window title, clipboard, cursor), so they are taken
out at the two places where foreign text enters: where a document is read and where tokens become text.
"""

from __future__ import annotations

import re

# C0 without tab and newline, DEL, C1 (U+009B alone opens an escape sequence), and the marks that turn the
# reading direction, which can make a text show something else than it says. CR is among them: see `clean`.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SURROGATES = re.compile("[\ud800-\udfff]")  # half a character: printing one raises UnicodeEncodeError
# All that neither of them names, the commonest first: five times as fast as looking for what they do name.
_SAFE = re.compile("[ -~\n\t\xa0-\u061b\u061d-\u200d\u2010-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff]*")
_PAGE_END = re.compile("(?<=\n)\f|\f(?=\n)")


def sanitise(text: str) -> str:
    """Drop control characters except tab and newline, and the controls of reading direction.

    Each character is judged alone, so a stream may be cut anywhere: sanitise(a) + sanitise(b) equals
    sanitise(a + b). Hence CR LF becomes a newline and a lone CR disappears.
    """
    if _SAFE.fullmatch(text):  # `sub` would copy a text of any size
        return text
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def clean(text: str) -> str:
    """`sanitise` for a whole text: CR LF, a lone CR and the other line ends become a newline first.

    A form feed becomes a newline too, unless it stands beside one: a page may end within a paragraph.
    """
    for end in ("\r\n", "\r", "\x85", "\u2028", "\u2029"):
        text = text.replace(end, "\n")
    if "\f" in text:
        text = _PAGE_END.sub("", text).replace("\f", "\n")
    return sanitise(text.replace("\ufeff", ""))


def one_line(text: str, limit: int = 200) -> str:
    """A title, file name or message as one safe line of at most `limit` characters."""
    line = " ".join(sanitise(text.replace("\r", " ")).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
