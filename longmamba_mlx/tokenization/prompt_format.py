"""The prompt form: how a question is put, where its answer ends, and which answers mean "not found"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longmamba_mlx.documents.sanitise import one_line
from longmamba_mlx.errors import ConfigError, UsageError

_QUESTION = "\n\nQuestion: {question}\nAnswer:"
_STOPS = ("\n",)
_NOT_FOUND = ("the document does not say", "not in the document", "not mentioned", "not given")
_QUOTED = re.compile("[\"'“‘«](.*)[\"'”’»]([?!. ]*)")
# A last word whose dot does not end the question: initials, and abbreviations that names end with.
_ABBREVIATED = re.compile(r"(?:[^\W\d_]\.)*[^\W\d_]|ph\.d|inc|ltd|co|corp|bros|jr|sr|esq|st|ave|rd", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PromptForm:
    """The texts around the document, the questions and the answers.

    The plain form is for base models; a model folder's config.json may define another ("longmamba" block), and a chat
    model's template gives one (`chat_template`). `opening` is read before the document, so that the document state is a
    true prefix of every prompt; `question` follows the document, `follow_up` an answer.

    `known`: the only questions that the model can answer, each with {name} in place of a name; () for any question.
    """

    question: str = _QUESTION
    stops: tuple[str, ...] = _STOPS
    not_found: tuple[str, ...] = _NOT_FOUND
    opening: str = ""
    follow_up: str = ""
    known: tuple[str, ...] = ()

    @classmethod
    def from_settings(cls, settings: Mapping[str, object], template: PromptForm | None = None) -> PromptForm:
        """Read the keys question, stop, not_found and known_questions of `settings`.

        Without a question, `template` is the form if there is one. Raises ConfigError for anything but texts.
        """
        if template is not None and "question" not in settings:
            return template
        question = settings.get("question", _QUESTION)
        if not isinstance(question, str) or "{question}" not in question:
            raise ConfigError('"question" in the longmamba settings must be a text with {question} in it.')
        known = tuple(map(one_line, _texts(settings, "known_questions", ())))  # they are shown
        return cls(question, _texts(settings, "stop", _STOPS), _texts(settings, "not_found", _NOT_FOUND), known=known)

    def as_known(self, question: str) -> str | None:
        """The question in the model's own words; None if it is none of its known questions.

        Case, white space, final punctuation and quotes around the whole question are ignored outside the name. The name
        stays as written, with the dot of "B." or "Acme Inc.": the document has it so.
        """
        if not self.known:
            return question
        words = _without_ending(" ".join(question.split()))
        for shape in self.known:
            before, _, after = _without_ending(" ".join(shape.split())).partition("{name}")
            match = re.fullmatch(f"{re.escape(before)}(\\S.*?){re.escape(after)}", words, re.IGNORECASE)
            if match:
                return f"{before}{match[1]}{after}?"
        return None

    def example(self, question: str) -> str:
        """The known question that is worded most like another one, with NAME in place of a name."""
        words = set(_without_ending(question).casefold().split())

        def likeness(shape: str) -> float:
            known = set(_without_ending(shape).casefold().split()) - {"{name}"}
            return len(known & words) / len(known | words)

        return max(self.known, key=likeness, default="").replace("{name}", "NAME")

    def ask(self, question: str, *, again: bool = False) -> str:
        """The prompt for a question after the document, or with `again` after an answer. Raises UsageError if empty."""
        words = " ".join(question.split())
        if not words:
            raise UsageError("The question is empty.", hint='Ask something: longmamba-mlx ask --file F "Who?"')
        form = self.follow_up if again and self.follow_up else self.question
        if "{question}?" in form:  # the form already has the question mark
            words = words.rstrip("? ")
        return form.replace("{question}", words)

    def ask_after(self, question: str, *, again: bool = False) -> tuple[str, str]:
        """`ask` in two parts; passages that are read again go between them.

        They follow the document, or in a conversation begin the question's turn.
        """
        text = self.ask(question, again=again)
        turn = len(self.follow_up.split("{question}")[0]) if again and self.follow_up else 0
        return text[:turn], text[turn:]

    def reread(self, passages: Sequence[str]) -> str:
        """The text of passages that are read again."""
        return "".join(f"\n\n{passage}" for passage in passages) + ("\n\n" if self.follow_up else "")

    def finish(self, text: str) -> tuple[str, bool]:
        """The part of `text` before the first stop text, and whether there was one."""
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def is_refusal(self, text: str) -> bool:
        """Whether `text` is exactly one of the phrases for "not in the document", so that the answer can end there."""
        plain = text.strip(" .").casefold()
        return any(plain == phrase.strip(" .").casefold() for phrase in self.not_found)

    def found(self, answer: str) -> bool:
        """False for an answer that is empty or contains a phrase for "not in the document"."""
        plain = answer.casefold()
        return bool(plain.strip()) and not any(phrase.casefold() in plain for phrase in self.not_found)


def _texts(settings: Mapping[str, object], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = settings.get(key, default)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ConfigError(f'"{key}" in the longmamba settings must be a list of texts.')
    return tuple(value)


def _without_ending(question: str) -> str:
    """A question without its final punctuation and the quotes around all of it.

    One dot before a question mark is the last word's, as in "… of B.?"; without a question mark, that of an
    abbreviation is.
    """
    quoted = _QUOTED.fullmatch(question)
    if quoted and not set(quoted[1]) & set('"“”«»'):
        question = quoted[1] + quoted[2]
    words = question.rstrip("?!. ")
    ending = question[len(words) :]
    if not ending.startswith(".") or ending.startswith(".."):
        return words
    return f"{words}." if "?" in ending or _ABBREVIATED.fullmatch(words.rpartition(" ")[2]) else words
