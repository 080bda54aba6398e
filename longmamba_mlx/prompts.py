"""How a model is asked, when its answer ends, and which answers mean that the document does not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from longmamba_mlx.errors import ConfigError, UsageError

_QUESTION = "\n\nQuestion: {question}\nAnswer:"
_STOPS = ("\n",)
_NOT_FOUND = ("the document does not say", "not in the document", "not mentioned", "not given")


@dataclass(frozen=True, slots=True)
class PromptForm:
    """The plain form for base models; a model folder's config.json may bring its own ("longmamba" block)."""

    question: str = _QUESTION
    stops: tuple[str, ...] = _STOPS
    not_found: tuple[str, ...] = _NOT_FOUND

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> PromptForm:
        """Read the keys question, stop and not_found. Raises ConfigError for anything but texts."""
        question = settings.get("question", _QUESTION)
        if not isinstance(question, str) or "{question}" not in question:
            raise ConfigError('"question" in the longmamba settings must be a text with {question} in it')
        return cls(question, _texts(settings, "stop", _STOPS), _texts(settings, "not_found", _NOT_FOUND))

    def ask(self, question: str) -> str:
        """The text that follows the document. Raises UsageError for an empty question."""
        words = " ".join(question.split())
        if not words:
            raise UsageError("The question is empty.", hint='Ask something: longmamba-mlx ask --file F "Who?"')
        if "{question}?" in self.question:  # the form brings the mark itself
            words = words.rstrip("? ")
        return self.question.replace("{question}", words)

    def finish(self, text: str) -> tuple[str, bool]:
        """The part of `text` before the first stop, and whether there was one."""
        places = [place for stop in self.stops if (place := text.find(stop)) >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def is_refusal(self, text: str) -> bool:
        """Whether `text` is exactly one of the phrases for "not in the document": nothing need follow it."""
        plain = text.strip(" .").casefold()
        return any(plain == phrase.strip(" .").casefold() for phrase in self.not_found)

    def found(self, answer: str) -> bool:
        """False for an answer that is empty or says that the document does not tell."""
        plain = answer.casefold()
        return bool(plain.strip()) and not any(phrase.casefold() in plain for phrase in self.not_found)


def _texts(settings: Mapping[str, object], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    value = settings.get(key, default)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ConfigError(f'"{key}" in the longmamba settings must be a list of texts')
    return tuple(value)
