"""A near relative of Apple's front end: clang reads a kernel as C++ for OpenCL, which has Metal's address spaces.

It notices what a C++ compiler cannot: pointers that change their address space, pointers without one, double,
library functions that Metal does not have. The text is MLX's; what OpenCL kernels may not have (templates, references)
is written differently.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.metal.texts import signature

_HEADER = (Path(__file__).parent / "near_metal.h").read_text(encoding="utf-8")
_ARGUMENTS = (
    *("-x", "clcpp", "-cl-std=CLC++2021", "-target", "x86_64-linux-gnu", "-Xclang", "-ffake-address-space-map"),
    *("-cl-no-stdinc", "-cl-single-precision-constant", "-fsyntax-only"),
    "-cl-ext=-all,+cl_khr_fp16,+__opencl_c_generic_address_space,+__opencl_c_program_scope_global_variables",
)


def _values(text: str) -> str:
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


def as_opencl(text: str) -> str:
    """MLX's kernel text as C++ for OpenCL."""
    parts = signature(text)
    head, _, body = text.split("\ntemplate [[host_name(")[0].partition("[[kernel]] void")
    body = body[body.index(") {") + 3 :]
    head = re.sub(r"template <[^>]*>\n$", "", head)
    parameters, references = [], []
    outputs = {name for name in re.findall(r"^  device \w+\* (\w+) ", text, re.MULTILINE)}
    for argument in parts.arguments:
        const = "" if argument.name in outputs else "const "
        if argument.pointer:
            parameters.append(f"{const}{argument.space} {argument.type}* {argument.name}")
        else:
            parameters.append(f"{const}{argument.space} {argument.type}* {argument.name}_")
            references.append(f"{const}{argument.space} {argument.type}& {argument.name} = *{argument.name}_;")
    parameters += [f"{kind} {name}" for kind, name in parts.attributes]
    return "\n".join(
        [
            _HEADER,
            '#line 1 "kernel"',
            head,
            _values(text),
            f"kernel void checked({', '.join(parameters)}) {{",
            *references,
            body,
        ]
    )


def complaints(text: str) -> list[str]:
    """What clang says against a kernel text; empty when nothing."""
    from clang import cindex

    source = as_opencl(text)
    unit = cindex.Index.create().parse("kernel.clcpp", args=list(_ARGUMENTS), unsaved_files=[("kernel.clcpp", source)])
    found = [str(problem) for problem in unit.diagnostics if problem.severity >= cindex.Diagnostic.Error]
    for cursor in unit.cursor.walk_preorder():
        declares = cursor.kind in (cindex.CursorKind.VAR_DECL, cindex.CursorKind.PARM_DECL)
        if declares and "__generic" in cursor.type.get_canonical().spelling:
            found.append(f"{cursor.spelling} is a pointer or reference without an address space")
    return found
