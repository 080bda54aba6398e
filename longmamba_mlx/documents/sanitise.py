"""Text from documents, models and file names, made safe to show: no control codes reach a terminal.

Textual, rich and plain `print` pass escape sequences on (window title, clipboard, cursor), so they are taken
out at the two places where foreign text enters: where a document is read and where tokens become text.
"""

from __future__ import annotations

import re
from functools import cache

# C0 without tab and newline, DEL, C1 (U+009B alone opens an escape sequence), and the marks that turn the
# reading direction, which can make a text show something else than it says. CR is among them: see `clean`.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SURROGATES = re.compile("[\ud800-\udfff]")  # half a character: printing one raises UnicodeEncodeError
# All that neither of them names, the commonest first: five times as fast as looking for what they do name.
_SAFE = re.compile("[ -~\n\t\xa0-\u061b\u061d-\u200d\u2010-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\U0010ffff]*")

# What `clean` leaves alone: of what is safe, all but odd spaces, line ends and invisible characters.
_PLAIN = (
    " -~\t\xa1-\xac\xae-\u061b\u061d-\u167f\u1681-\u1fff\u200c\u200d\u2010-\u2027\u2030-\u205e\u2061-\u2065"
    "\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
)
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x1c-\x1e\x85\u2028\u2029]")
_PAGE_END = re.compile("(?<=\n)\f|\f(?=\n)")
_SPACES = re.compile("[\x1f\xa0\u1680\u2000-\u200a\u202f\u205f]")  # no-break, thin and wide ones; not the ideographic
_INVISIBLE = re.compile("[\xad\u200b\u2060\ufeff\ufffe\uffff]")  # soft hyphens, zero-width spaces, byte order marks
_NULS = re.compile("\x00+")
_LONGEST_ESCAPE = 2048  # characters
_ESCAPE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]"  # CSI: colours, cursor
    "|(?:\x1b[\\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]{0,2000}(?:\x07|\x1b\\\\|\x9c)"  # OSC, DCS and the like
    "|\x1b[ -/]{1,8}[0-~]|\x1b[78=>]"  # character sets, cursor and keypad
)
_ESCAPE_STARTS = "\x1b\x90\x98\x9b\x9d\x9e\x9f"
_UNDERLINED = re.compile("([^\n\b_])\b_")
_STRUCK = re.compile("[^\n\b]\b")
_MOST_STRIKES = 4  # characters that one was printed over


@cache  # 3 ms that the first frame of the chat does not need
def _clean_text() -> re.Pattern[str]:
    return re.compile(f"[{_PLAIN}\n]*")


@cache  # 18 ms
def _may_cut() -> re.Pattern[str]:
    return re.compile(f"(?<=[{_PLAIN}\n])[{_PLAIN}\n][^\b]{{{2 * _MOST_STRIKES}}}", re.S)


def sanitise(text: str) -> str:
    """Drop control characters except tab and newline, and the controls of reading direction.

    Each character is judged alone, so a stream may be cut anywhere: sanitise(a) + sanitise(b) equals
    sanitise(a + b). Hence CR LF becomes a newline and a lone CR disappears.
    """
    if _SAFE.fullmatch(text):  # `sub` would copy a text of any size
        return text
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def clean(text: str) -> str:
    """Sanitise a whole text: apply line ends, overstrikes and terminal sequences, normalise spaces.

    Terminal sequences (colours) are removed; of characters printed over each other the last stays. All line ends become
    a newline, and so does a form feed, unless next to one: a page may end within a paragraph. No-break and other odd
    spaces become a space, and so do NULs; soft hyphens and zero-width spaces are removed, as in HTML.
    """
    if _clean_text().fullmatch(text):
        return text
    if any(start in text for start in _ESCAPE_STARTS):
        text = _ESCAPE.sub("", text)
    if "\b" in text:
        text = _printed(text)
    text = _LINE_ENDS.sub("\n", text)
    if "\f" in text:
        text = _PAGE_END.sub("", text).replace("\f", "\n")
    if "\x00" in text:
        text = _NULS.sub(" ", text)
    return sanitise(_INVISIBLE.sub("", _SPACES.sub(" ", text)))


def last_cut(text: str) -> int:
    """Return the last position at which a text may be cut before cleaning, whatever follows; 0 for none.

    Both pieces are clean alone: clean(text[:cut]) + clean(text[cut:] + more) equals clean(text + more).
    """
    position = len(text) - 2 * _MOST_STRIKES - 1
    for cut in range(position, max(position - 2 * _LONGEST_ESCAPE, 0), -1):
        if _may_cut().match(text, cut) and not _in_escape(text, cut):
            return cut
    return 0


def one_line(text: str, limit: int = 200) -> str:
    """A title, file name or message as one safe line of at most `limit` characters."""
    line = " ".join(sanitise(text.replace("\r", " ")).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _printed(text: str) -> str:
    """What overstrikes show: bold is N BS N, underlined _ BS N or N BS _."""
    text = _UNDERLINED.sub(r"\1", text)
    for _ in range(_MOST_STRIKES):
        text = _STRUCK.sub("", text)
    return text


def _in_escape(text: str, cut: int) -> bool:
    """Whether a terminal sequence that starts before `cut` may extend beyond it: any one, since they nest."""
    first, start = max(cut - _LONGEST_ESCAPE, 0), cut
    while (start := max(text.rfind(mark, first, start) for mark in _ESCAPE_STARTS)) >= 0:
        found = _ESCAPE.match(text, start)
        if found.end() > cut if found else len(text) - start <= _LONGEST_ESCAPE:
            return True
    return False
