"""The tokenizer of a converted model: the checkpoint's own, the user's choice, or the one it was trained with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from longmamba_mlx.conversion.hub.download import snapshot
from longmamba_mlx.conversion.hub.files import TOKENIZER_FILES, tokenizer_files
from longmamba_mlx.conversion.report import Report
from longmamba_mlx.errors import ModelError
from longmamba_mlx.ground.hub_id import is_hub_id
from longmamba_mlx.models.config.parse import ModelConfig, read_json
from longmamba_mlx.models.weight_files import file_in
from longmamba_mlx.tokenization.tokenizer import TOKENIZERS, Tokenizer, tokenizer_file

NEOX = "EleutherAI/gpt-neox-20b"
BYTES = "bytes"

_MAX_BYTES = 128 << 20
_MAX_CONFIG_BYTES = 16 << 20
_BYTE_TOKENS = range(256, 265)  # some pad to a multiple of 8
_NEOX_TOKENS = range(50277, 50305)  # with and without the padding that mamba_ssm adds
_OPTION = "--tokenizer PATH (a tokenizer.json or its folder), --tokenizer OWNER/NAME, or --tokenizer bytes"
_SENTENCEPIECE = ("tokenizer.model", "tokenizer.model.v3", "spiece.model", "tekken.json")


def write_tokenizer(
    draft: Path,
    source: Path,
    config: ModelConfig,
    raw: Mapping[str, object],
    *,
    choice: str | Path | None,
    offline: bool,
    report: Report,
) -> None:
    """Put tokenizer.json, and a chat template where there is one, into the folder `draft`.

    choice: a tokenizer.json, a folder, a Hub id, "bytes", or None for the checkpoint's own or, without one, the
    one that its kind is known to use. A checkpoint with an unknown tokenizer is converted without one, with a
    notice. Raises ModelError, with a hint that says what to provide.
    """
    if choice is not None:
        _write_chosen(draft, choice, offline=offline, report=report)
    elif _has_one(source):
        _copy(source, draft)
    else:
        _write_known(draft, source, config, raw, offline=offline, report=report)
    if tokenizer_file(draft) is not None:
        _check(draft, config)


def _has_one(folder: Path) -> bool:
    """Whether a folder holds a tokenizer that is read."""
    return any(file_in(folder, name) is not None for name in TOKENIZERS)


def _write_chosen(draft: Path, choice: str | Path, *, offline: bool, report: Report) -> None:
    path = Path(choice).expanduser()
    if path.is_file():
        _copy_file(path, draft / ("tokenizer.jsonl" if path.suffix == ".jsonl" else "tokenizer.json"))
    elif path.is_dir():
        _copy(path, draft)
    elif str(choice) == BYTES:
        _write_bytes(draft)
    elif is_hub_id(str(choice)):
        _fetch(draft, str(choice), offline=offline, report=report)
    else:
        raise ModelError(f"There is no tokenizer {str(choice)[:100]}.", hint=f"Give {_OPTION}")


def _write_known(
    draft: Path, source: Path, config: ModelConfig, raw: Mapping[str, object], *, offline: bool, report: Report
) -> None:
    found = [name for name in _SENTENCEPIECE if (source / name).is_file()]
    if found:
        raise ModelError(
            f"{source.name} holds its tokenizer only as {found[0]}, which is not read.",
            hint=f"Give a converted one, e.g. of the same model in transformers' layout: {_OPTION}",
        )
    if 256 <= config.vocab_size <= 256 + 8:  # padded to a multiple of 8
        report.line("No tokenizer in the source, and a vocabulary of 256: text goes in as bytes.")
        _write_bytes(draft)
    elif "model_type" not in raw and config.vocab_size in _NEOX_TOKENS:
        report.line(f"No tokenizer in the source; models of this kind use {NEOX}'s.")
        _fetch(draft, NEOX, offline=offline, report=report)
    else:
        report.line(f"No tokenizer in the source: the folder can be loaded, but not read text. Give {_OPTION}.")


def _fetch(draft: Path, repository: str, *, offline: bool, report: Report) -> None:
    try:
        found = snapshot(repository, revision=None, offline=offline, report=report, choose=tokenizer_files)
        if not _has_one(found.folder):
            raise ModelError(f"{repository} has no tokenizer.json")
    except ModelError as error:
        raise ModelError(f"The tokenizer is missing: {error}", hint=f"Give {_OPTION}") from error
    _copy(found.folder, draft)


def _copy(source: Path, draft: Path) -> None:
    """The tokenizer's file and what belongs to it, without anything that asks for code."""
    for name in TOKENIZER_FILES:
        path = file_in(source, name)
        if path is None:
            continue
        if name == "tokenizer_config.json":
            table = read_json(path, max_bytes=_MAX_CONFIG_BYTES)
            table.pop("auto_map", None)
            text = json.dumps(table, indent=2, ensure_ascii=False)
            (draft / name).write_text(text + "\n", encoding="utf-8")
        else:
            _copy_file(path, draft / name)


def _copy_file(source: Path, target: Path) -> None:
    if source.stat().st_size > _MAX_BYTES:
        raise ModelError(f"{source.name} is larger than {_MAX_BYTES:,} bytes.", hint="Is it a tokenizer?")
    shutil.copyfile(source, target)


def _write_bytes(draft: Path) -> None:
    """Token i is byte i, as byte-level Mambas are trained."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    vocabulary = {character: number for number, character in enumerate(_byte_characters())}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.save(str(draft / "tokenizer.json"))
    table = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (draft / "tokenizer_config.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _byte_characters() -> list[str]:
    """The character by which byte-level tokenizers (GPT-2's and all since) write each byte: itself where it is
    printable, else the next free one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in range(256)]


def _check(draft: Path, config: ModelConfig) -> None:
    try:
        tokens = Tokenizer.from_folder(draft).vocabulary
    except ModelError as error:
        reason = str(error).replace(draft.name, "the source")
        raise ModelError(reason, hint=f"Give {_OPTION}") from None
    if tokens > config.vocab_size:
        raise ModelError(
            f"The tokenizer has {tokens} tokens, the model only {config.vocab_size}.",
            hint=f"Is it this model's? Give {_OPTION}",
        )
