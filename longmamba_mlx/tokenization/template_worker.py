"""Render chat templates in a child process: JSON in, JSON out.

Started as `python -m longmamba_mlx.tokenization.template_worker`. Jinja's sandbox keeps a template from Python's own
objects, but not from looping for ever or doubling a text a hundred times; the limits on the process do.
"""

from __future__ import annotations

import json
from typing import Any, cast

from longmamba_mlx.tokenization.bounded_child import serve

_SECONDS = 3
_MEMORY = 500 << 20
_LONGEST = 1 << 16  # characters


def answer(task: dict[str, Any]) -> list[str]:
    """Render {template, conversations, tokens} -> one text per conversation."""
    return [_render(task["template"], messages, task["tokens"]) for messages in task["conversations"]]


def _render(template: str, messages: list[dict[str, str]], tokens: dict[str, str]) -> str:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    text = environment.from_string(template).render(
        messages=messages, add_generation_prompt=True, tools=None, documents=None, **tokens
    )
    return text if len(text) <= _LONGEST else ""


def _refuse(message: str = "") -> None:
    raise ValueError(message)


def _to_json(value: Any, indent: int | None = None, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


if __name__ == "__main__":
    serve(cast("Any", answer), seconds=_SECONDS, memory=_MEMORY)
