"""What reads bytes of strangers: a function each, which raises nothing but the error that is meant for the user."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from longmamba_mlx.builtin import sample_document
from longmamba_mlx.conversion.torch_pickle.archive import read_tensors
from longmamba_mlx.conversion.torch_pickle.machine import PickleError
from longmamba_mlx.conversion.torch_pickle.tensors import read_tensor_table
from longmamba_mlx.documents.decode import UndecodableError, decode_clean
from longmamba_mlx.documents.formats import wire, worker
from longmamba_mlx.documents.formats.builder import Refused
from longmamba_mlx.errors import CalibrationError, ModelError, StateError
from longmamba_mlx.filtering import Calibration
from longmamba_mlx.models.config.parse import parse_config
from longmamba_mlx.models.weights import read_weights
from longmamba_mlx.registry.resolve import resolve
from longmamba_mlx.states.state_file import read_state
from longmamba_mlx.storage.checked_safetensors import save_arrays
from longmamba_mlx.storage.json_config import read_json
from longmamba_mlx.storage.safetensors_header import SafetensorsError, check_safetensors
from longmamba_mlx.tokenization.load_limits import check_cost

TESTS = Path(__file__).resolve().parents[1]
CRASHES = Path(__file__).parent / "crashes"
"""crashes/TARGET/*: what once went wrong, kept as a test."""


@dataclass(frozen=True, slots=True)
class Target:
    """`run` takes one input; `seeds` yields sound ones to begin with."""

    run: Callable[[bytes], object]
    seeds: Callable[[], Iterator[bytes]]


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))


def _as_file(name: str, read: Callable[[Path], object], error: type[Exception], data: bytes) -> None:
    path = _folder() / name
    path.write_bytes(data)
    with suppress(error):
        read(path)


def _pickle(data: bytes) -> None:
    with suppress(PickleError):
        read_tensor_table(data)


def _weights(path: Path) -> None:
    for array in read_weights([path]).values():
        bytes(memoryview(array.reshape(-1)[:4]))


def _tokenizer(data: bytes) -> None:
    with suppress(ValueError):
        check_cost(data)


def _document(kind: str, data: bytes) -> None:
    """What a child would answer, and this process believe."""
    answer = b"".join(worker.answer(worker.reader_of(kind), io.BytesIO(data)))
    with suppress(Refused):
        text = wire.read(answer).text
        assert not [c for c in set(text) if c < " " and c not in "\n\t"], "control characters"


def _text(data: bytes) -> None:
    with suppress(UndecodableError):
        text = decode_clean(io.BytesIO(data)).text
        assert not [c for c in set(text) if c < " " and c not in "\n\t"], "control characters"


def _samples(*patterns: str) -> Iterator[bytes]:
    for pattern in patterns:
        yield from (path.read_bytes() for path in sorted(TESTS.glob(pattern)))


def _pickles() -> Iterator[bytes]:
    import zipfile

    for path in sorted(TESTS.glob("conversion/files/*.bin")):
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist() if name.endswith(".pkl"))


def _tables() -> Iterator[bytes]:
    path = _folder() / "seed.safetensors"
    save_arrays(path, {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.float16)}, {"k": "v"})
    yield path.read_bytes()


def _states() -> Iterator[bytes]:
    from longmamba_mlx.states.state_file import write_state
    from tests.states.samples import INFO, KEY, make_state, make_thresholds

    path = _folder() / "state.safetensors"
    write_state(path, KEY, make_state(), make_thresholds(), INFO)
    yield path.read_bytes()


def _calibrations() -> Iterator[bytes]:
    yield (resolve("demo") / "longmamba.safetensors").read_bytes()


def _configs() -> Iterator[bytes]:
    yield (resolve("demo") / "config.json").read_bytes()
    yield (resolve("demo-mamba1") / "config.json").read_bytes()
    yield json.dumps({"ssm_cfg": {"layer": "Mamba2"}, "d_model": 24, "n_layer": 2, "vocab_size": 40}).encode()


def _tokenizers() -> Iterator[bytes]:
    yield (resolve("demo") / "tokenizer.json").read_bytes()


def _texts() -> Iterator[bytes]:
    start = sample_document().read_bytes()[:500].decode()
    yield from (start.encode(encoding) for encoding in ("utf-8-sig", "utf-16", "utf-32", "cp1252"))


def _mails() -> Iterator[bytes]:
    yield b"From: a@b.c\nTo: d@e.f\nSubject: =?utf-8?q?caf=C3=A9?=\nContent-Type: text/plain; charset=utf-8\n\nWords.\n"
    yield b'Subject: x\nContent-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: text/html\n\n<p>x\n--b--\n'


def _rich_texts() -> Iterator[bytes]:
    yield rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0 Times;}}\f0 Words \'e9\u8364? {\*\comment no}\par{\fldrslt x}}"


def _fiction_books() -> Iterator[bytes]:
    yield b"<FictionBook><body><section><title><p>One</p></title><p>Words.</p></section></body></FictionBook>"


def _loaded_calibration(path: Path) -> object:
    return Calibration.load(path, fingerprint="f" * 64, quantisation="none")


TARGETS = {
    "pickle": Target(_pickle, _pickles),
    "torch-zip": Target(
        partial(_as_file, "a.bin", read_tensors, ModelError), partial(_samples, "conversion/files/*.bin")
    ),
    "safetensors": Target(partial(_as_file, "a.safetensors", check_safetensors, SafetensorsError), _tables),
    "weights": Target(partial(_as_file, "model.safetensors", _weights, ModelError), _tables),
    "config": Target(
        partial(_as_file, "config.json", lambda path: parse_config(read_json(path)), ModelError), _configs
    ),
    "tokenizer": Target(_tokenizer, _tokenizers),
    "state": Target(partial(_as_file, "s.safetensors", partial(read_state, whole=False), StateError), _states),
    "calibration": Target(partial(_as_file, "c.safetensors", _loaded_calibration, CalibrationError), _calibrations),
    "text": Target(_text, _texts),
    "html": Target(partial(_document, "markup"), partial(_samples, "documents/samples/*.html")),
    "packages": Target(
        partial(_document, "packages"),
        partial(_samples, "documents/samples/*.epub", "documents/samples/*.docx", "documents/samples/*.odt"),
    ),
    "pdf": Target(partial(_document, "pdf"), partial(_samples, "documents/samples/*.pdf")),
    "mail": Target(partial(_document, "mail"), _mails),
    "rtf": Target(partial(_document, "rtf"), _rich_texts),
    "fictionbook": Target(partial(_document, "fictionbook"), _fiction_books),
}
