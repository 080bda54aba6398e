"""The child process: `python -m longmamba_mlx.documents.formats.worker KIND SECONDS < FILE` tells text and places."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import IO

from longmamba_mlx.documents import decode
from longmamba_mlx.documents.formats import wire
from longmamba_mlx.documents.formats.builder import Parsed, Refused
from longmamba_mlx.documents.formats.limits import lock_down

Reader = Callable[[IO[bytes]], Parsed]


def main() -> int:
    """Read standard input as the kind of file named, within limits."""
    kind, seconds = sys.argv[1], int(sys.argv[2])
    read = reader_of(kind)  # before the limits: it imports
    decode.preload()
    source, target = os.fdopen(0, "rb", closefd=False), os.fdopen(1, "wb", closefd=False)
    lock_down(seconds)
    for block in answer(read, source):
        target.write(block)
    target.flush()
    return 0


def answer(read: Reader, source: IO[bytes]) -> Iterator[bytes]:
    """What to tell the parent of a file; whatever a parser trips over, the file is to blame."""
    try:
        source.seek(0)
        parsed = read(source)
    except Refused as refused:
        yield wire.refuse(refused)
    except MemoryError:
        yield wire.refuse(Refused("memory"))
    except Exception as error:
        yield wire.refuse(Refused("damaged", type(error).__name__))
    else:
        yield from wire.write(parsed)


def reader_of(kind: str) -> Reader:
    """The function for "html", "pdf" or "zip" (EPUB, DOCX). Raises KeyError."""
    if kind == "pdf":
        from longmamba_mlx.documents.formats.pdf import read_pdf

        return read_pdf
    if kind == "zip":
        from longmamba_mlx.documents.formats.packages import read_package

        return read_package
    if kind == "html":
        from longmamba_mlx.documents.formats.markup import read_html

        return read_html
    raise KeyError(kind)


if __name__ == "__main__":
    sys.exit(main())
