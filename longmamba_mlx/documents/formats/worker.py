"""The child process that parses one file: `python -m …formats.worker KIND SECONDS ENCODING < FILE`."""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import IO

from longmamba_mlx.documents import encodings
from longmamba_mlx.documents.formats import wire
from longmamba_mlx.documents.formats.builder import Parsed, Refused
from longmamba_mlx.documents.formats.limits import lock_down, memory_for

Reader = Callable[[IO[bytes], str], Parsed]
"""`read` of a format's module: an open file, and the encoding asked for or "", to its text. Raises Refused."""


def main() -> int:
    """Read standard input as the kind of file named, within limits."""
    kind, seconds, encoding = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    read = reader_of(kind)  # before the limits: it imports
    encodings.preload()
    if encoding:
        codecs.lookup(encoding)
    source, target = os.fdopen(0, "rb", closefd=False), os.fdopen(1, "wb", closefd=False)
    lock_down(seconds, memory_for(os.fstat(0).st_size))
    for block in answer(read, source, encoding):
        target.write(block)
    target.flush()
    return 0


def answer(read: Reader, source: IO[bytes], encoding: str = "") -> Iterator[bytes]:
    """The bytes of the answer; whatever error a parser raises, the file is damaged."""
    try:
        source.seek(0)
        parsed = read(source, encoding)
    except Refused as refused:
        yield wire.refuse(refused)
    except MemoryError:
        yield wire.refuse(Refused("memory"))
    except Exception as error:  # parsers raise anything on a damaged file
        yield wire.refuse(Refused("damaged", type(error).__name__))
    else:
        yield from wire.write(parsed)


def reader_of(kind: str) -> Reader:
    """The `read` of a format's module. Raises ImportError."""
    reader: Reader = import_module(f"longmamba_mlx.documents.formats.{kind}").read
    return reader


if __name__ == "__main__":
    sys.exit(main())
