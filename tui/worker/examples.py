"""Suggested first questions, made from the names and chapters of a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_LOOKED_AT = 150_000  # characters: some 20 ms
_MOST = 3
_SPEECH = "said|cried|replied|asked|answered|thought|exclaimed|returned|whispered"
_TITLE = r"(?:Mr\.?|Mrs\.?|Miss|Dr\.?|Captain|Sir|Lady|Monsieur|Madame)"
_NAME = rf"((?:{_TITLE}\s+)?[A-Z][a-z]{{2,}}(?:\s[A-Z][a-z]{{2,}})?)"
_SPEAKER = re.compile(rf"\b(?:{_SPEECH})\s+{_NAME}\b|(?<!the )\b{_NAME}\s+(?:{_SPEECH})\b")
_CAPITALISED = re.compile(r"(?<=[a-z,;] )[A-Z][a-z]{3,}\b")
_NO_NAMES = frozenset(
    "The And But Then What When This That There Here They You Not How Who She His Her Nobody Everybody God Miss Sir "
    "Captain Lady".split()
)
_CHAPTER = re.compile(r"(chapter|letter|book|part|section)\s+(\w+)", re.I)
_FEWEST = 3  # mentions of a name that the text is about


def example_questions(text: str, chapters: Sequence[str], known: Sequence[str] = ()) -> tuple[str, ...]:
    """At most three questions about a text; of a model that knows only some kinds of question, first those.

    `chapters`: the headings of its chapters; `known`: the questions a model knows, with {name} in place of a name.
    """
    beginning = text[:_LOOKED_AT]
    found = [*_known(beginning, known), *_about_names(beginning)]
    named = [f"{match[1].lower()} {match[2]}" for label in chapters if (match := _CHAPTER.match(label))]
    if named:
        found.append(f"What happens in {named[min(2, len(named) - 1)]}?")
    return tuple(dict.fromkeys(found))[:_MOST]


def _known(text: str, known: Sequence[str]) -> list[str]:
    """The known questions whose words occur in the text before a name."""
    found = []
    for shape in known:
        before, _, _ = shape.partition("{name}")
        words = re.sub(r"^(?:what|who|where|when) (?:is|was|are) (?:the )?", "", before.strip(), flags=re.I).split()
        if words and (match := re.search(r"\s+".join(map(re.escape, words)) + r"\s+([A-Z][\w'’-]+)", text)):
            found.append(shape.replace("{name}", match[1]))
    return found


def _about_names(text: str) -> list[str]:
    speakers = Counter(" ".join((one or other).split()) for one, other in _SPEAKER.findall(text))
    names = [name for name, count in speakers.most_common(8) if count >= _FEWEST and name not in _NO_NAMES]
    others = [name for name in names[1:] if not {*name.split()} & {*names[0].split()}]
    if names:
        return [f"Who is {names[0]}?", *(f"What does {name} want?" for name in others[:1])]
    words = Counter(_CAPITALISED.findall(text))
    return [f"What is said about {word}?" for word, count in words.most_common(1) if count >= _FEWEST]
