"""The Python API from end to end, with the built-in model: python examples/api.py [BOOK.txt]

Reads a document, asks it questions, looks at what the filter kept, and goes on from a saved state without reading.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import longmamba_mlx as lm
from longmamba_mlx.builtin import sample_document


def main(path: Path) -> None:
    model = lm.load("demo")
    book = model.read(path, on_progress=lambda progress: print(f"\r{progress.done:,} tokens", end="", file=sys.stderr))
    print(f"\n{book.title}: {book.tokens:,} tokens, a state of {book.state.nbytes:,} bytes")

    reply = book.ask("What is the access code of Harrowgate?")
    print(f"{reply.text!r}, found: {reply.found}, {reply.tokens} tokens in {reply.seconds:.2f} s")
    for passage in reply.passages:
        print(f"  {'quote' if passage.quoted else 'related'}: paragraph {passage.number}")
    for piece in book.stream("What is the access code of Ravensholt?"):
        print(piece, end="")
    print()

    early = book.ask("What is the access code of Harrowgate?", as_of="2%")
    print(f"As of the first 2 %: {early.text!r}")
    kept = " ".join(f"{region.kept:.0%}" for region in book.regions(8))
    print(f"What the filter let into long memory, by eighths: {kept or 'all of it'}")

    with tempfile.TemporaryDirectory() as folder:
        book.save(Path(folder) / "book.state")
        again = model.open(Path(folder) / "book.state", path)
        print(f"From the saved state: {again.ask('What is the access code of Harrowgate?').text!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else sample_document())
