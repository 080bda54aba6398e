"""Detect the chapters of a plain or Markdown text by its headings, ignoring a table of contents."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from longmamba_mlx.documents.blocks import MARKDOWN, Run
from longmamba_mlx.documents.numbering import NUMBER, NUMBERED, UNNUMBERED, level_of, parse_heading
from longmamba_mlx.documents.places import Place

_LONGEST = 220  # characters: a heading of two lines
_LONGEST_TITLE, _LONGEST_NUMBER = 80, 9
_UNDERLINED = re.compile(r"([^\n]{1,120})\n(={3,}|-{3,})[ \t]*(?:\n|$)")
# A title after the number begins with anything but a small letter: "Chapter 3 was dull." is no heading.
_TITLE = r"(?:[.:]?\s*[—–-]?\s*(?-i:[^\sa-z])[^\n]{0,100}(?:\n[^\n]{1,100})?)?"
_CAPITALISED = r"[^\sa-z]\S*|a|an|and|at|by|for|from|in|of|on|or|the|to|with"  # a word in a title
_CHAPTER = re.compile(
    rf"(?:(?:{NUMBERED})\s+{NUMBER}\b{_TITLE}[.:]?"
    rf"|(?:(?:first|second|third)\s+)?(?:{UNNUMBERED})(?::\s[^\n]{{1,60}})?[.:]?"
    rf"|(?-i:[IVXLC]{{1,7}}\.(?:[ \t]+(?:{_CAPITALISED})){{1,14}})"
    rf"|(?-i:(?:[0-9]{{1,3}}|[IVXLC]{{1,7}})\.?\n[ \t]*(?:{_CAPITALISED})"
    rf"(?:[ \t]+(?:{_CAPITALISED})){{0,14}}(?<![.,;])))\s*$",
    re.I,
)
_LONE = re.compile(r"(?:[0-9]{1,3}|[IVXLC]{1,7})[.:]?")
_BARE = re.compile(rf"(?:{NUMBERED})\s+{NUMBER}[.:]?|(?-i:{_LONE.pattern})", re.I)
_BARE_TITLE = re.compile(rf"[^\W_a-z]\S*(?:[ \t]+(?:{_CAPITALISED})){{0,14}}(?<![.,;:])")
_MAYBE = re.compile(rf"#|[0-9IVXLC]|(?:{NUMBERED}|{UNNUMBERED}|first|second|third)\b", re.I)

_FEWEST_ENTRIES = 3  # in a table of contents
_ENTRY_TEXT = 1500  # characters: what follows an entry of a table of contents, on average, is shorter
_ENTRY_SHARE = 0.25  # and than this share of what follows the headings after it
_STRAY_TEXT = 300
_MOST_HEADINGS = 50_000  # a text with more of them (a log, a list) has no chapters that anybody would name


@dataclass(frozen=True, slots=True)
class _Heading:
    """`run` is the number of the run it starts, `following` that of the run right after it, 0 for text."""

    start: int
    end: int
    label: str
    level: int
    run: int
    following: int
    marked: bool  # as a heading of Markdown


def find_chapters(text: Iterable[Run], end: int) -> tuple[Place, ...]:
    """Find the chapters of a text that ends at character `end`, in order. A heading is at the start of a run."""
    found = _books_and_parts(list(islice(_headings(text), _MOST_HEADINGS + 1)))
    if len(found) > _MOST_HEADINGS:
        return ()
    for _ in range(8):  # contents within contents
        kept = _without_contents(found, end)
        if len(kept) == len(found):
            break
        found = kept
    return numbered([Place(heading.start, "chapter", heading.label, 0, heading.level) for heading in found])


def numbered(chapters: list[Place]) -> tuple[Place, ...]:
    """Number chapters by their labels; count them if no label has a number."""
    told = [replace(place, number=parse_heading(place.label)[1]) for place in chapters]
    if any(place.number for place in told):
        return tuple(told)
    levels = [place.level for place in told]
    level = min((level for level in set(levels) if levels.count(level) > 1), default=min(levels, default=0))
    count = 0
    for index, place in enumerate(told):
        if place.level == level:
            count += 1
            told[index] = replace(place, number=count)
    return tuple(told)


def _headings(text: Iterable[Run]) -> Iterator[_Heading]:
    """Headings; one that is but a number takes the next paragraph as its title, if that looks like one."""
    held: _Heading | None = None
    for run in text:
        heading = None if run.code and run.text[run.start] == "#" else _heading(run)
        if held:
            if heading is None and run.end - run.start <= _LONGEST_TITLE and _match(_BARE_TITLE.fullmatch, run):
                yield _with_title(held, run)
                held = None
                continue
            if not _LONE.fullmatch(held.label):
                yield held
        held = heading or _lone_number(run)
        if held and not _BARE.fullmatch(held.label):
            yield held
            held = None
    if held and not _LONE.fullmatch(held.label):
        yield held


def _with_title(number: _Heading, run: Run) -> _Heading:
    title = " ".join(run.text[run.start : run.end].split())
    label = f"{number.label.rstrip('.:')}: {title}"
    return replace(number, end=run.offset + run.end, label=label, following=run.number + 1)


def _lone_number(run: Run) -> _Heading | None:
    """The heading of a paragraph that is only "7" or "XII.", else None; the next paragraph confirms it."""
    label = run.text[run.start : run.end] if run.end - run.start <= _LONGEST_NUMBER else ""
    return _made(run, run.end, label, level_of(label)) if _LONE.fullmatch(label) else None


def _heading(run: Run) -> _Heading | None:
    if run.text[run.start] == "#" and (match := _match(MARKDOWN.match, run)):
        label = match[1].strip().rstrip("#").strip()
        return _made(run, match.end(), label, len(match[0]) - len(match[0].lstrip("#")), True) if label else None
    if match := _match(_UNDERLINED.match, run):
        return _made(run, match.end(), match[1].strip(), 1 if match[2][0] == "=" else 2)
    if run.end - run.start <= _LONGEST and _match(_MAYBE.match, run) and _match(_CHAPTER.match, run):
        label = " ".join(run.text[run.start : run.end].split())
        return _made(run, run.end, label, level_of(label))
    return None


def _match(how: Callable[[str, int, int], re.Match[str] | None], run: Run) -> re.Match[str] | None:
    return how(run.text, run.start, run.end)


def _made(run: Run, end: int, label: str, level: int, marked: bool = False) -> _Heading:
    """The heading that a run begins with; `end` by the run's own text."""
    following = 0 if run.text[end : run.end].strip() else run.number + 1
    return _Heading(run.offset + run.start, run.offset + end, label, level, run.number, following, marked)


def _books_and_parts(found: list[_Heading]) -> list[_Heading]:
    """Some works have parts in books, others books in parts: which comes first is the outer one."""
    words = [parse_heading(heading.label)[0] for heading in found]
    if "book" not in words or "part" not in words or words.index("part") < words.index("book"):
        return found
    part, book = level_of("part 1"), level_of("book 1")
    swapped = {"part": book, "book": part}
    return [
        replace(heading, level=swapped[word]) if word in swapped and heading.level in (part, book) else heading
        for heading, word in zip(found, words, strict=True)
    ]


def _without_contents(found: list[_Heading], end: int) -> list[_Heading]:
    """Leave out a table of contents: headings that come again later, with next to nothing after each."""
    paths = _paths(found)
    entries = _strays(found, paths) | _entries(found, paths, end)
    return [item for number, item in enumerate(found) if number not in entries or item.marked]


def _entries(found: list[_Heading], paths: list[tuple[object, ...]], end: int) -> set[int]:
    """Numbers of the headings that are entries of a table of contents: they recur, with little text between them."""
    first: dict[tuple[object, ...], int] = {}
    index = next((index for index, path in enumerate(paths) if first.setdefault(path, index) != index), 0)
    begin = first[paths[index]] if paths else 0
    starts = [heading.start for heading in found] + [end]
    length = (starts[index - 1] - starts[begin]) / max(index - begin, 1)
    later_length = (end - starts[index]) / max(len(found) - index, 1)
    if index - begin < _FEWEST_ENTRIES or length > min(_ENTRY_TEXT, _ENTRY_SHARE * later_length):
        return set()
    later = set(paths[index:])
    return {
        number
        for number in range(begin, index)
        if paths[number] in later or starts[number + 1] - found[number].end < _STRAY_TEXT
    }


def _strays(found: list[_Heading], paths: list[tuple[object, ...]]) -> set[int]:
    """Entries left over from a table of contents: they come again, and what follows at once is no heading below."""
    last = {path: index for index, path in enumerate(paths)}
    return {
        index
        for index, (one, other) in enumerate(pairwise(found))
        if last[paths[index]] > index and other.level <= one.level and one.following == other.run
    }


def _paths(found: list[_Heading]) -> list[tuple[object, ...]]:
    """Each heading's kind and number, after those of the headings around it: (BOOK ONE, CHAPTER I)."""
    paths: list[tuple[object, ...]] = []
    around: list[tuple[int, object]] = []
    for heading in found:
        word, number = parse_heading(heading.label)
        key: object = (word, number) if number else heading.label.casefold()
        while around and around[-1][0] >= heading.level:
            around.pop()
        around.append((heading.level, key))
        paths.append(tuple(key for _, key in around))
    return paths
