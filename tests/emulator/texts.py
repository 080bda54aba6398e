"""The text of a kernel exactly as MLX would hand it to Apple's compiler, obtained where there is no Metal."""

from __future__ import annotations

import ctypes
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

_TEXT = re.compile(r"Generated source code for `[^`]*`:\n```\n(.*?)```\n", re.DOTALL)


def printed(function: Callable[..., list[mx.array]], *arrays: mx.array) -> str:
    """What MLX prints while `function` is exported. It prints from C++, to descriptor 1, not to sys.stdout.

    Inside an export MLX checks a kernel's arguments and writes its text without needing Metal.
    """
    libc = ctypes.CDLL(None)
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "text", "w+") as text:
        libc.fflush(None)
        saved = os.dup(1)
        os.dup2(text.fileno(), 1)
        try:
            mx.export_function(str(Path(folder) / "f"), function, *arrays)
        finally:
            libc.fflush(None)
            os.dup2(saved, 1)
            os.close(saved)
        text.seek(0)
        return text.read()


def texts(function: Callable[..., list[mx.array]], *arrays: mx.array) -> list[str]:
    """The kernel texts printed by `function`, whose launches must be verbose."""
    return _TEXT.findall(printed(function, *arrays))


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of the signature: whether it may be written, address space, type, whether it is a pointer, name."""

    const: bool
    space: str
    type: str
    pointer: bool
    name: str


@dataclass(frozen=True, slots=True)
class Signature:
    """A kernel text taken apart: arguments in buffer order, attributes in order, the instantiation to call."""

    arguments: tuple[Argument, ...]
    attributes: tuple[tuple[str, str], ...]
    instance: str


_ARGUMENT = re.compile(r"^  (const )?(device|constant) ([\w<>]+)([*&]) (\w+) \[\[buffer\((\d+)\)\]\]", re.MULTILINE)
_ATTRIBUTE = re.compile(r"^  (\w+) (\w+) \[\[(\w+)\]\]", re.MULTILINE)
_INSTANCE = re.compile(r"decltype\((custom_kernel_\w+(?:<[^>]*>)?)\)")


def signature(text: str) -> Signature:
    """Take MLX's text apart."""
    head = text[text.index("[[kernel]] void") :]
    head = head[: head.index(") {")]
    arguments = [match.groups() for match in _ARGUMENT.finditer(head)]
    if [int(found[5]) for found in arguments] != list(range(len(arguments))):
        raise AssertionError(f"buffers out of order in:\n{head}")
    instance = _INSTANCE.search(text)
    name = re.search(r"void (custom_kernel_\w+)\(", head)
    if name is None:
        raise AssertionError("no kernel in the text")
    return Signature(
        tuple(Argument(bool(const), space, kind, mark == "*", name) for const, space, kind, mark, name, _ in arguments),
        tuple((kind, name) for kind, name, attribute in _ATTRIBUTE.findall(head + ")") if name == attribute),
        instance.group(1) if instance else name.group(1),
    )


def body_for_host(text: str) -> str:
    """The text for a host compiler: without the instantiation, threadgroup variables made static and known."""
    text = text.split("\ntemplate [[host_name(")[0]
    text = re.sub(r"/\*.*?\*/", lambda found: re.sub(r"[^\n]", " ", found.group()), text, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*|#include <metal_\w+>", "", text)
    return re.sub(
        r"\bthreadgroup\s+(?!\w+\s*[*&])([\w:]+)\s+(\w+)\s*((?:\[[^\];]*\]\s*)*);", r"SHARED_ARRAY(\1, \2, \3);", text
    )


def template_values(text: str) -> str:
    """The template arguments as constants and types of the same names."""
    found = re.search(r"template <([^>]*)>\n\[\[kernel\]\]", text)
    if found is None:
        return ""
    values = re.search(r"<([^>]*)>", signature(text).instance)
    lines = []
    for parameter, value in zip(found[1].split(", "), (values[1] if values else "").split(", "), strict=True):
        kind, name = parameter.split()
        lines.append(f"using {name} = {value};" if kind == "typename" else f"enum : {kind} {{ {name} = {value} }};")
    return "\n".join(lines)


def head_and_body(text: str) -> tuple[str, str]:
    """What stands before the kernel, and the kernel's body with its closing brace."""
    text = re.sub(r"#include <metal_\w+>", "", text)
    head, _, body = text.split("\ntemplate [[host_name(")[0].partition("[[kernel]] void")
    return re.sub(r"template <[^>]*>\n$", "", head), body[body.index(") {") + 3 :]
