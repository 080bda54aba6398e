"""Derive a prompt form from a chat model's own template.

A template is a small program from the model's folder. It is rendered twice in a limited child process, with marks in
place of the document, the questions and the answer, and split at the marks. What comes before the document is read
before it, so that the document state is a true prefix of every prompt. A template that changes its texts (repeats them,
or needs tools) gives no form, and the model is prompted in the plain one.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from longmamba_mlx.tokenization import bounded_child
from longmamba_mlx.tokenization.prompt_format import PromptForm

_LARGEST = 256 << 10  # bytes of a template
_DOCUMENT, _ANSWER = "[[document]]", "[[answer]]"
_QUESTIONS = ("[[question 1]]", "[[question 2]]")
_TASK = 'Answer from the text above alone, in few words. If it does not tell, say: "The document does not say."'
_SECONDS = 45.0  # by the clock; the child limits its own computing


def template_form(folder: Path) -> PromptForm | None:
    """The prompt form of `folder`'s chat template; None without a template, or with one that cannot be used."""
    source = _source(folder)
    if source is None:
        return None
    template, tokens = source
    first = {"role": "user", "content": f"{_DOCUMENT}\n\n{_TASK}\n\n{_QUESTIONS[0]}"}
    conversation = [first, {"role": "assistant", "content": _ANSWER}, {"role": "user", "content": _QUESTIONS[1]}]
    try:
        asked, talked = _render(template, ([first], conversation), tokens)
    except (OSError, ValueError, RecursionError, subprocess.SubprocessError):
        return None  # whatever goes wrong in a foreign template: the plain form is used
    return _cut(asked, talked)


def _cut(asked: str, talked: str) -> PromptForm | None:
    """The form from a rendered first question, and from a rendered conversation with a second one."""
    if any(text.count(mark) != 1 for text, mark in ((asked, _DOCUMENT), (asked, _QUESTIONS[0]))):
        return None
    opening, rest = asked.split(_DOCUMENT)
    question = rest.replace(_QUESTIONS[0], "{question}")
    follow_up = ""
    if talked.count(_ANSWER) == 1 and talked.count(_QUESTIONS[1]) == 1:
        follow_up = talked.split(_ANSWER)[1].replace(_QUESTIONS[1], "{question}")
    if "{question}" in opening or question.count("{question}") != 1:
        return None
    return PromptForm(question=question, stops=(), opening=opening, follow_up=follow_up)


def _source(folder: Path) -> tuple[str, dict[str, str]] | None:
    """The template's text, and the special tokens that it may refer to."""
    settings = _read(folder / "tokenizer_config.json")
    try:
        table = json.loads(settings) if settings else {}
    except (ValueError, RecursionError):
        table = {}
    table = table if isinstance(table, dict) else {}
    text = _read(folder / "chat_template.jinja") or _named(table.get("chat_template"))
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    return None if not text else (text, {name: _token(table.get(name)) for name in names})


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.stat().st_size <= 64 * _LARGEST else ""
    except (OSError, ValueError):
        return ""


def _named(value: object) -> str:
    """The default template of tokenizer_config.json, which holds a text or a list of named ones."""
    if isinstance(value, list):
        named = [item for item in value if isinstance(item, dict) and item.get("name") == "default"]
        value = named[-1].get("template") if named else None
    return value if isinstance(value, str) and len(value) <= _LARGEST else ""


def _token(value: object) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _render(
    template: str, conversations: Sequence[Sequence[dict[str, str]]], tokens: dict[str, str]
) -> tuple[str, str]:
    """Render the template for each of two conversations, in a child process with limited time and memory."""
    task = {"template": template, "conversations": conversations, "tokens": tokens}
    rendered = bounded_child.run("longmamba_mlx.tokenization.template_worker", task, seconds=_SECONDS)
    if not isinstance(rendered, list) or len(rendered) != 2:
        raise ValueError("a template worker answers with one text per conversation")
    return str(rendered[0]), str(rendered[1])
