"""Decide which elements of a web page are skipped, and where each ends when end tags are missing."""

from __future__ import annotations

import re

VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure "
    "footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu noscript ol p pre section summary table "
    "tbody tfoot thead ul".split()
)
SKIPPED = frozenset(
    "annotation audio button canvas datalist del head iframe nav noembed noframes object rp rt script "
    "select style svg template title video".split()
)
CONTROLS = frozenset(("button", "nav", "select"))  # their text is seen, but says nothing
_IN_HEAD = frozenset("base basefont bgsound command link meta noscript script style template title".split())
# The start tags that end an element whose end tag was left out. At an end tag around it it ends too.
_ENDED_BY = {
    "p": BLOCKS,
    "li": frozenset(("li",)),
    "dt": frozenset(("dt", "dd")),
    "dd": frozenset(("dt", "dd")),
    "tr": frozenset(("tr", "tbody", "tfoot", "thead")),
    "td": frozenset(("td", "th", "tr", "tbody", "tfoot", "thead")),
    "th": frozenset(("td", "th", "tr", "tbody", "tfoot", "thead")),
    "thead": frozenset(("tbody", "tfoot")),
    "tbody": frozenset(("tbody", "tfoot")),
    "tfoot": frozenset(("tbody",)),
    "option": frozenset(("option", "optgroup")),
}
_MOST_OPEN = 500
_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
MAY_HIDE = re.compile(r"<noscript|\shidden|display\s*:\s*none|visibility\s*:\s*hidden", re.I)


def is_hidden(tag: str, attributes: dict[str, str | None]) -> bool:
    """Whether an element is hidden; never <html> or <body>, which a script shows later."""
    if tag in ("html", "body") or (attributes.get("hidden") or "").lower() == "until-found":
        return False
    return "hidden" in attributes or bool(_STYLE.search(attributes.get("style") or ""))


def is_page_number(attributes: dict[str, str | None]) -> bool:
    """Whether an element is a printed page's number in the middle of an e-book's text."""
    return "pagebreak" in f"{attributes.get('epub:type')} {attributes.get('role')}"


class Skipped:
    """A part that is not read, from its start tag on; `letters`: how much was passed over."""

    def __init__(self, tag: str) -> None:
        self.tag, self.letters = tag, 0
        self._open: list[str] = []

    def start(self, tag: str) -> bool:
        """Whether this start tag ends the part."""
        if not self._open and (tag in _ENDED_BY.get(self.tag, ()) or (self.tag == "head" and tag not in _IN_HEAD)):
            return True
        if self._open and tag in _ENDED_BY.get(self._open[-1], ()):
            self._open.pop()
        if tag not in VOID and len(self._open) < _MOST_OPEN:
            self._open.append(tag)
        return False

    def end(self, tag: str) -> bool:
        """Whether this end tag ends the part: its own, or one around it."""
        if tag in self._open:
            while self._open.pop() != tag:
                pass
            return False
        return tag == self.tag or (self.tag in _ENDED_BY and tag in (*BLOCKS, *_ENDED_BY))
