"""A near relative of Apple's front end: clang reads a kernel as C++ for OpenCL, which has Metal's address spaces.

It notices what a C++ compiler cannot: pointers that change their address space, pointers without one, double,
library functions that Metal does not have. The text is MLX's; what OpenCL kernels may not have (templates, references)
is written differently.
"""

from __future__ import annotations

from pathlib import Path

from tests.emulator.texts import head_and_body, signature, template_values

_HEADER = (Path(__file__).parent / "near_metal.h").read_text(encoding="utf-8")
_ARGUMENTS = (
    *("-x", "clcpp", "-cl-std=CLC++2021", "-target", "x86_64-linux-gnu", "-Xclang", "-ffake-address-space-map"),
    *("-cl-no-stdinc", "-cl-single-precision-constant", "-fsyntax-only"),
    "-cl-ext=-all,+cl_khr_fp16,+__opencl_c_generic_address_space,+__opencl_c_program_scope_global_variables",
)


def as_opencl(text: str) -> str:
    """MLX's kernel text as C++ for OpenCL."""
    parts = signature(text)
    head, body = head_and_body(text)
    parameters, references = [], []
    for argument in parts.arguments:
        const = "const " if argument.const else ""
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
            template_values(text),
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
