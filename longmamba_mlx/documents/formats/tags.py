"""HTMLParser with comments and self-closing scripts as in browsers, and linear time on malformed input."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser

_COMMENT_END = re.compile(r"--!?>")
_SCRIPT = re.compile(r"<(/?)(script|style)\b", re.I)


class Tags(HTMLParser):
    """Calls handle_starttag, handle_endtag and handle_data for a text given whole to `feed`.

    A tag that the text's end cuts off is text; the text of unfinished comments and declarations is kept after their
    first ">". Every step looks no further than to where it ends, so that no text takes more than linear time.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._last = -1  # position of the text's last ">"
        self._has_comment_end = True
        self._at = 0

    def feed(self, data: str) -> None:
        self._last = data.rfind(">")
        super().feed(data)

    def parse_starttag(self, i: int) -> int:
        self._at = i
        return self._as_text(i) if i > self._last else super().parse_starttag(i)

    def parse_endtag(self, i: int) -> int:
        return self._as_text(i) if i > self._last else super().parse_endtag(i)

    def parse_pi(self, i: int) -> int:
        return self._to_end_of_tag(i)

    def parse_html_declaration(self, i: int) -> int:
        return self._to_end_of_tag(i)

    def parse_comment(self, i: int, report: bool = True) -> int:
        """A comment's end; "<!-->" and "<!--->" are whole ones."""
        for whole in ("<!-->", "<!--->"):
            if self.rawdata.startswith(whole, i):
                return i + len(whole)
        match = _COMMENT_END.search(self.rawdata, i + 4) if self._has_comment_end else None
        self._has_comment_end = match is not None
        return match.end() if match else self._to_end_of_tag(i)

    def is_closed(self, tag: str) -> bool:
        """Whether "<script/>" has no content, as in XHTML: no end tag before the next script starts."""
        following = _SCRIPT.search(self.rawdata, self._at + len(tag))
        return following is None or not following[1]

    def _to_end_of_tag(self, i: int) -> int:
        return self._as_text(i) if i > self._last else self.rawdata.index(">", i) + 1

    def _as_text(self, i: int) -> int:
        """Pass the rest of the input on as text, since no tag in it is complete."""
        self.handle_data(unescape(self.rawdata[i:]))
        return len(self.rawdata)
