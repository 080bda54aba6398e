"""Write the reference pages from the code: the command line, the chat's commands, the Python API.

    python docs/reference/make.py [--check]

`--check` writes nothing and exits with 1 where a page differs from the code.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import typer.main  # noqa: E402

import longmamba_mlx as lm  # noqa: E402
from longmamba_mlx import errors, events, ops  # noqa: E402
from longmamba_mlx.cli.app import app  # noqa: E402
from longmamba_mlx.tui.commands import table  # noqa: E402
from longmamba_mlx.tui.screens.help import KEYS  # noqa: E402

HERE = Path(__file__).parent
INTERNAL = {"restored", "index", "info"}
"""Methods that are public to the package, and of no use outside it."""
NOTE = "<!-- Written by docs/reference/make.py. Change the code, then run it again. -->"


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


# --- the command line ---------------------------------------------------------------------------------------------


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command that the help shows, with its full name, groups expanded: "ask", "states ls"."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name, sub in inner.items():
        if sub.hidden:
            continue
        yield from commands(sub, (*path, name))


def option_row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    takes_value = not getattr(parameter, "is_flag", False)
    value = f" `{parameter.metavar or parameter.name.upper()}`" if takes_value else ""
    default = parameter.default
    shown = f"`{default}`" if takes_value and default not in (None, "", []) else ""
    variable = f" Environment: `{parameter.envvar}`." if getattr(parameter, "envvar", None) else ""
    return f"| {names}{value} | {cell((parameter.help or '') + variable)} | {cell(shown)} |"


def command_section(name: str, command: Any) -> list[str]:
    arguments = [item for item in command.params if not item.opts[0].startswith("-")]
    named = [item for item in command.params if item.opts[0].startswith("-") and item.name != "help"]
    words = []
    for item in arguments:
        word = (item.metavar or item.name.upper()) + ("…" if item.nargs == -1 else "")
        words.append(word if item.required else f"[{word.strip('[]')}]")
    usage = " ".join(["longmamba-mlx", name, *(["[OPTIONS]"] if named else []), *words])
    lines = [f"## {name}", "", inspect.cleandoc(command.help or ""), "", f"    {usage}", ""]
    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{word}` | {cell(item.help or '')} |" for word, item in zip(words, arguments, strict=True)]
        lines.append("")
    if named:
        lines += ["| option | meaning | default |", "|---|---|---|", *map(option_row, named), ""]
    return lines


def command_line() -> list[str]:
    found = list(commands(typer.main.get_command(app)))
    lines = ["# Command line", "", "`longmamba-mlx FILE…` is short for `longmamba-mlx chat --file FILE…`; "]
    lines[-1] += "`longmamba-mlx` alone opens the chat's start screen. Every command has `--help`."
    lines += ["", "| command | does |", "|---|---|"]
    for name, command in found:
        summary = inspect.cleandoc(command.help or "").split("\n\n")[0]
        lines.append(f"| [{name}](#{name.replace(' ', '-')}) | {cell(summary)} |")
    lines.append("")
    for name, command in found:
        lines += command_section(name, command)
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    return [*lines, *(f"| {code} | {meaning} |" for code, meaning in errors.EXIT_CODES.items()), ""]


# --- the chat -----------------------------------------------------------------------------------------------------


def chat() -> list[str]:
    lines = ["# Commands and keys of the chat", "", "[The terminal chat](../chat.md) shows how they are used.", ""]
    for group, heading in table.HEADINGS.items():
        lines += [f"## {heading}", "", "| command | does | key |", "|---|---|---|"]
        lines += [
            f"| `{command.usage}` | {cell(command.summary)} | {command.key} |"
            for command in table.COMMANDS
            if command.group == group
        ]
        lines.append("")
    lines += ["## Keys", "", "| key | does |", "|---|---|"]
    return [*lines, *(f"| {key} | {cell(what)} |" for key, what in KEYS), ""]


# --- the Python API -----------------------------------------------------------------------------------------------


def annotation(of: Any) -> str:
    if of is inspect.Parameter.empty:
        return ""
    return of if isinstance(of, str) else getattr(of, "__forward_arg__", None) or getattr(of, "__name__", str(of))


def signature(of: Any, name: str) -> str:
    """A call as written in code: one line, or one line per parameter where that is too long."""
    parts, returned = [], ""
    found = inspect.signature(of)
    star = False
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        kind = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        star = star or kind == "*"
        hint = annotation(parameter.annotation)
        default = "" if parameter.default is parameter.empty else repr(parameter.default)
        equals = (" = " if hint else "=") + default if default else ""
        parts.append(f"{kind}{parameter.name}{': ' + hint if hint else ''}{equals}")
    if hint := annotation(found.return_annotation):
        returned = f" -> {hint}"
    line = f"{name}({', '.join(parts)}){returned}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returned}"])


def documented(title: str, code: str, doc: str | None, level: int = 3) -> list[str]:
    block = ["```text", code, "```", ""] if code else []
    return [f"{'#' * level} {title}", "", *block, inspect.cleandoc(doc or ""), ""]


def members(of: type) -> Iterator[tuple[str, str, str | None]]:
    """Public methods and properties of a class itself: title, signature, docstring."""
    for name, member in vars(of).items():
        if name.startswith("_") or name in INTERNAL:
            continue
        if isinstance(member, property) and member.fget is not None:
            hint = annotation(inspect.signature(member.fget).return_annotation)
            yield name, f"{name}: {hint}", member.fget.__doc__
        elif inspect.isfunction(member) or isinstance(member, classmethod | staticmethod):
            yield f"{name}()", signature(getattr(of, name), name), getattr(of, name).__doc__


def function_section(called: str, of: Any, name: str) -> list[str]:
    return documented(f"`{called}`", signature(of, name), of.__doc__)


def record_section(of: Any, name: str) -> list[str]:
    """A dataclass of arrays with its fields."""
    fields = [f"{field.name}: {field.type}" for field in dataclasses.fields(of)]
    return documented(f"`lm.ops.{name}`", "\n".join(fields), of.__doc__)


def class_section(of: type, called: str) -> list[str]:
    """A class with its public members; a frozen dataclass, made by the package alone, with its fields."""
    lines = documented(f"`{called}`", "", of.__doc__)
    if dataclasses.is_dataclass(of) and of.__module__ == events.__name__:
        lines += ["```text", *(f"{field.name}: {field.type}" for field in dataclasses.fields(of)), "```", ""]
    for title, code, doc in members(of):
        if doc:
            lines += documented(f"`{of.__name__}.{title}`", code, doc, level=4)
    return lines


def error_classes(of: type[errors.LongMambaError]) -> Iterator[type[errors.LongMambaError]]:
    yield of
    for sub in of.__subclasses__():
        if sub.__module__ == errors.__name__:
            yield from error_classes(sub)


def python_api() -> list[str]:
    lines = ["# Python API", "", "```python", "import longmamba_mlx as lm", "```", ""]
    lines += ["Everything below is typed; the package ships `py.typed`. Use a model from one thread.", ""]
    lines += ["## Models and documents", ""]
    for name in ("load", "calibrate", "convert"):
        function = getattr(lm, name)
        lines += function_section(f"lm.{name}()", function, name)
    lines += class_section(lm.Model, "lm.Model") + class_section(lm.ReadDocument, "lm.ReadDocument")
    lines += ["## What they return", ""]
    for of in (events.Answer, events.Passage, events.Region):
        lines += class_section(of, of.__name__)
    lines += ["## Operations: `lm.ops`", "", inspect.cleandoc(ops.__doc__ or ""), ""]
    for name in sorted(set(ops.__all__) - {"part_norms"}, key=str.lower):
        of = getattr(ops, name)
        lines += record_section(of, name) if isinstance(of, type) else function_section(f"lm.ops.{name}()", of, name)
    lines += ["## Errors: `longmamba_mlx.errors`", "", inspect.cleandoc(errors.__doc__ or ""), ""]
    lines += ["| error | meaning | exit code |", "|---|---|---|"]
    for error in error_classes(errors.LongMambaError):
        lines.append(f"| `{error.__name__}` | {cell((error.__doc__ or '').split(chr(10))[0])} | {error.exit_code} |")
    return [*lines, ""]


PAGES = {"cli.md": command_line, "chat-commands.md": chat, "python.md": python_api}


def main(check: bool) -> int:
    stale = 0
    for name, write in PAGES.items():
        lines = write()
        text = "\n".join([lines[0], "", NOTE, *lines[1:]]).rstrip() + "\n"
        path = HERE / name
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            print(f"docs/reference/{name} is not what the code says: run python docs/reference/make.py")
            stale = 1
        elif not check:
            path.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
