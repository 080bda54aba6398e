"""LongMamba on MLX: read a whole document once, in constant memory, and ask it questions.

    import longmamba_mlx as lm

    model = lm.load("demo")
    book = model.read("book.txt", on_progress=print)
    print(book.ask("What is the access code of Varnok?").text)

Importing this package does no work: every name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from longmamba_mlx import ops as ops
    from longmamba_mlx.conversion import convert as convert
    from longmamba_mlx.documents import Document as Document
    from longmamba_mlx.events import Answer as Answer
    from longmamba_mlx.session.api import Model as Model
    from longmamba_mlx.session.api import ReadDocument as ReadDocument
    from longmamba_mlx.session.api import calibrate as calibrate
    from longmamba_mlx.session.api import load as load

_LAZY = {
    "Answer": "longmamba_mlx.events",
    "Document": "longmamba_mlx.documents",
    "Model": "longmamba_mlx.session.api",
    "ReadDocument": "longmamba_mlx.session.api",
    "calibrate": "longmamba_mlx.session.api",
    "convert": "longmamba_mlx.conversion",
    "load": "longmamba_mlx.session.api",
}

__all__ = [
    "Answer",
    "Document",
    "Model",
    "ReadDocument",
    "__version__",
    "calibrate",
    "convert",
    "load",
    "ops",
]


def __getattr__(name: str) -> Any:
    if name == "ops":
        return import_module("longmamba_mlx.ops")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
