"""The child process in which a chat template runs: JSON in, JSON out.

Started as `python -m longmamba_mlx.tokenization.template_worker`.

The sandbox keeps a template from Python's own objects. It does not keep it from looping for ever or doubling a text a
hundred times: the limits on this process do.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

_SECONDS = 3
_MEMORY = 1 << 30
_LONGEST = 1 << 16  # characters


def main() -> None:
    """Read {template, talks, tokens} from standard input, write the list of rendered texts."""
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    if sys.platform != "darwin":  # there it has no effect, and time is the only limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    task = json.load(sys.stdin)
    json.dump([_render(task["template"], talk, task["tokens"]) for talk in task["talks"]], sys.stdout)


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
    main()
