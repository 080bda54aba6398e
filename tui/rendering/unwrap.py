"""Line ends that only the width of some page made: without them a text fills any width.

Plain-text books come in lines of about 70 characters. In a narrower pane every second row would hold two words.
"""

from __future__ import annotations

_FEWEST_LINES = 20
_NARROWEST, _WIDEST = 50, 100  # characters of a page that lines were broken for
_SHARE = 0.97  # of the lines are not longer than the page is wide
_NEARLY = 0.93  # of the width: pages were not always filled to the last character


def unwrap(text: str) -> str:
    """The text with such line ends as blanks; every character keeps its place.

    A line was broken for the page's width where the next word would not have fitted any more. Where lines are short for
    their own sake (verse, headings, lists, logs) nothing is joined.
    """
    lines = text.split("\n")
    width = _page_width([len(line) for line in lines if line and not line.isspace()])
    if width is None:
        return text
    parts = []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        parts.append(line)
        parts.append(" " if _was_broken(line, following, width) else "\n")
    return "".join(parts[:-1])


def _was_broken(line: str, following: str, width: int) -> bool:
    # An indented line begins something of its own.
    if not following or following[0].isspace() or line.isspace() or len(line) > width:
        return False
    word = following.find(" ")
    return len(line) + 1 + (len(following) if word < 0 else word) > width * _NEARLY


def _page_width(lengths: list[int]) -> int | None:
    """The width that lines were broken for, None when they were not."""
    if len(lengths) < _FEWEST_LINES:
        return None
    lengths.sort()
    width = lengths[int(len(lengths) * _SHARE)]
    near = sum(length > width * 0.85 for length in lengths)
    return width if _NARROWEST <= width <= _WIDEST and near > len(lengths) / 4 else None
