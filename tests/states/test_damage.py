"""The remembered documents: exact, found by every key field, set aside when anything about them is wrong."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from longmamba_mlx.errors import NumericError, StateError
from longmamba_mlx.models.state import LayerState, ModelState
from longmamba_mlx.states.state_file import write_state
from longmamba_mlx.states.store import StateKey, StateStore, read_state
from longmamba_mlx.storage import checked_safetensors
from tests.states.samples import INFO, KEY, key_for, make_state, make_thresholds, same

Record = Callable[[str, object], None]


class Shelf:
    """A store with one state in it, and what it warned of."""

    def __init__(self, folder: Path) -> None:
        self.warnings: list[str] = []
        self.store = StateStore(folder, warn=self.warnings.append)
        self.state = make_state()
        self.path = self.store.save(KEY, self.state, make_thresholds(), INFO)
        self.content = self.path.read_bytes()

    def refuses(self, content: bytes | None = None) -> bool:
        """Put `content` in the file's place: True when it is set aside and told of in one line."""
        self.warnings.clear()
        if content is not None:
            self.path.write_bytes(content)
        loaded = self.store.load(KEY, like=make_state(seed=9))
        bad = self.path.with_name(self.path.name + ".bad")
        aside = bad.exists() and not self.path.exists()
        bad.unlink(missing_ok=True)
        line = self.warnings[0] if len(self.warnings) == 1 else ""
        return loaded is None and aside and line.isprintable() and "cannot be used" in line


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "states")


@pytest.mark.parametrize("tokens", [0, 1, 511, 512, 513, 1 << 40])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_what_is_saved_is_loaded(tmp_path: Path, tokens: int, dtype: mx.Dtype) -> None:
    store = StateStore(tmp_path, warn=pytest.fail)
    key, state = key_for(tokens), make_state(tokens=tokens, dtype=dtype)
    path = store.save(key, state, make_thresholds(), INFO)
    assert path == tmp_path / key.digest()[:2] / f"{key.digest()}.safetensors"
    loaded = store.load(key, like=make_state(seed=3, dtype=dtype))
    assert loaded is not None
    assert same(loaded.state, state) and loaded.key == key and loaded.info == INFO
    assert loaded.thresholds[0] is None
    np.testing.assert_array_equal(loaded.thresholds[1], make_thresholds()[1])


def test_without_thresholds(tmp_path: Path) -> None:
    store = StateStore(tmp_path, warn=pytest.fail)
    for thresholds in ([], [None, None]):
        store.save(KEY, make_state(), thresholds, {})
        loaded = store.load(KEY, like=make_state())
        assert loaded is not None and list(loaded.thresholds) == thresholds and loaded.info == {}


def test_nothing_stored_is_no_warning(tmp_path: Path) -> None:
    assert StateStore(tmp_path / "none", warn=pytest.fail).load(KEY) is None


def test_folders_are_private(shelf: Shelf) -> None:
    for folder in (shelf.path.parent, shelf.store.folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_saving_sweeps_orphans(shelf: Shelf) -> None:
    orphan = shelf.path.parent / ".tmp-9999999999-0123456789ab"
    orphan.mkdir()
    os.utime(orphan, (1, 1))
    shelf.store.save(KEY, shelf.state, [], {})
    assert not orphan.exists()


# -------------------------------------------------------------------------------------------------- the key


@pytest.mark.parametrize("name", [field.name for field in fields(StateKey)])
def test_every_field_of_the_key_counts(shelf: Shelf, name: str) -> None:
    value = getattr(KEY, name)
    other = replace(KEY, **{name: value + 1 if isinstance(value, int) else value + "x"})
    assert other.digest() != KEY.digest()
    assert shelf.store.load(other) is None
    # The file under the other key's name: the fields within are compared too.
    foreign = shelf.store.path(other)
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_bytes(shelf.content)
    assert shelf.store.load(other) is None
    assert "another" in shelf.warnings[0] and not foreign.exists()
    assert shelf.store.load(KEY) is not None


def test_the_digest_is_of_this_version_forever() -> None:
    """A change here makes every stored state unreachable: count FORMAT_VERSION up then."""
    assert KEY.to_json().startswith('{"calibration":"","chunk":512,"config":"ccc')
    assert KEY.digest() == "b0dff2d86f475b8492d7e18097068059b671d6617cfe44aa0eb83e01f445b759"


def test_a_key_from_json() -> None:
    assert StateKey.from_json(KEY.to_json()) == KEY
    table = json.loads(KEY.to_json())
    for bad in (
        "",
        "[]",
        "null",
        "[" * 100_000,
        json.dumps({**table, "tokens": "40"}),
        json.dumps({**table, "tokens": True}),
        json.dumps({**table, "tokens": 40.0}),
        json.dumps({**table, "more": 1}),
        json.dumps({**table, "model": None}),
        json.dumps({name: value for name, value in table.items() if name != "model"}),
    ):
        with pytest.raises(ValueError):
            StateKey.from_json(bad)


# ------------------------------------------------------------------------------------------------- damage


def flip(shelf: Shelf, bits: Iterable[int], record_property: Record) -> None:
    count = 0
    for bit in bits:
        changed = bytearray(shelf.content)
        changed[bit // 8] ^= 1 << bit % 8
        assert shelf.refuses(bytes(changed)), bit
        count += 1
    record_property("flipped bits of a state", f"{count}, all noticed")


def test_bit_flips(shelf: Shelf, record_property: Record) -> None:
    """300 single bits anywhere in the file. (Every bit of a file: tests/storage/test_arrays.py.)"""
    flip(shelf, random.Random(7).sample(range(len(shelf.content) * 8), 300), record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_all_bit_flips(shelf: Shelf, record_property: Record) -> None:
    flip(shelf, range(len(shelf.content) * 8), record_property)


def cut_and_swap(shelf: Shelf, cuts: int, record_property: Record) -> None:
    content, dice = shelf.content, random.Random(8)
    half = len(content) // 2
    sizes = dice.sample(range(len(content)), cuts)
    changes = [content[:size] for size in sizes]
    changes += [content + b"\x00", content * 2, content[half:] + content[:half], bytes(len(content)), b""]
    changes += [content[:size] + bytes(len(content) - size) for size in sizes if any(content[size:])]
    changes += [content + dice.randbytes(dice.randrange(1, 4096)) for _ in range(cuts // 4)]
    for change in changes:
        assert shelf.refuses(change)
    record_property("cut, longer or swapped states", f"{len(changes)}, all noticed")


def test_cuts_and_swaps(shelf: Shelf, record_property: Record) -> None:
    cut_and_swap(shelf, 100, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_thousands_of_cuts_and_swaps(shelf: Shelf, record_property: Record) -> None:
    cut_and_swap(shelf, 1000, record_property)


def rewrite(path: Path, arrays: dict[str, mx.array], **metadata: str) -> None:
    """A file that is sound as a file: its digests are right, its content is not."""
    good = {"key": KEY.to_json(), "layers": "0", "info": "{}", "done": "40", "ids": ""}
    checked_safetensors.save_arrays(path, arrays, {k: v for k, v in {**good, **metadata}.items() if v is not None})


@pytest.mark.parametrize(
    "metadata",
    [
        {"key": None},
        {"layers": None},
        {"done": None},
        {"done": "x"},
        {"done": "39"},
        {"done": "41"},
        {"done": "-1"},
        {"ids": None},
        {"info": None},
        {"key": "{}"},
        {"key": "[" * 50_000},
        {"key": '{"tokens":40}'},
        {"layers": "-1"},
        {"layers": "99999999999"},
        {"layers": "x"},
        {"layers": "9" * 5000},
        {"info": "[]"},
        {"info": '{"a":[]}'},
        {"info": "x"},
    ],
    ids=str,
)
def test_sound_files_with_wrong_texts(shelf: Shelf, metadata: dict[str, str]) -> None:
    rewrite(shelf.path, make_state().arrays(), **metadata)
    assert shelf.refuses()


def test_sound_files_with_wrong_arrays(shelf: Shelf) -> None:
    good = make_state().arrays()
    nan = mx.array(np.full((1, 4, 5), np.nan, np.float32))
    threshold = mx.zeros((4,))
    cases: list[tuple[dict[str, mx.array], str]] = [
        ({}, "0"),
        ({n: a for n, a in good.items() if n != "layers.1.ssm"}, "0"),
        ({**good, "layers.2.ssm": mx.zeros((1,))}, "0"),
        ({**good, "extra": mx.zeros((1,))}, "0"),
        (make_state(units=3).arrays(), "0"),
        (make_state(layers=3).arrays(), "0"),
        (make_state(dtype=mx.float16).arrays(), "0"),
        ({**good, "layers.0.ssm": nan}, "0"),
        ({**good, "layers.1.ssm": nan * 0 + np.inf}, "0"),
        ({**good, "thresholds.0": mx.array([0, 0, 0, np.nan])}, "2"),
        ({**good, "thresholds.0": mx.zeros((5,))}, "2"),
        ({**good, "thresholds.0": mx.zeros((4,), mx.float16)}, "2"),
        ({**good, "thresholds.2": threshold}, "3"),
        ({**good, "thresholds.0": threshold}, "0"),
        ({**good, "thresholds.x": threshold}, "2"),
    ]
    for arrays, layers in cases:
        rewrite(shelf.path, arrays, layers=layers)
        assert shelf.refuses(), (sorted(arrays), layers)


def test_hostile_info_cannot_reach_the_terminal(shelf: Shelf) -> None:
    rewrite(
        shelf.path,
        make_state().arrays(),
        info=json.dumps({"title": "a\x1b]52;c;eA==\x07b", "x\x9b": "\u202e"}),
    )
    loaded = shelf.store.load(KEY)
    assert loaded is not None and loaded.info == {"title": "a]52;c;eA==b", "x": ""}
    assert shelf.store.list()[0].info == loaded.info


def test_a_state_that_is_not_finite_is_not_stored(shelf: Shelf) -> None:
    layer = shelf.state.layers[0]
    broken = ModelState((LayerState(layer.conv, layer.ssm * np.inf), *shelf.state.layers[1:]), 40)
    with pytest.raises(NumericError):
        shelf.store.save(KEY, broken, [], {})
    assert shelf.path.read_bytes() == shelf.content


def test_mistakes_of_the_caller(shelf: Shelf) -> None:
    with pytest.raises(ValueError):
        shelf.store.save(key_for(41), shelf.state, [], {})
    with pytest.raises(ValueError):
        shelf.store.save(KEY, shelf.state, [None], {})
    with pytest.raises(ValueError):
        shelf.store.save(KEY, shelf.state, [], {"a": ["nested"]})  # type: ignore[dict-item]
    assert shelf.path.read_bytes() == shelf.content


def test_a_file_that_cannot_be_read_now_is_kept(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stumbles says nothing about the state: it must not be thrown away."""

    def stumble(*arguments: object, **options: object) -> int:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", stumble)
        assert shelf.store.load(KEY) is None
    assert len(shelf.warnings) == 1 and "Input/output error" in shelf.warnings[0]
    assert shelf.path.read_bytes() == shelf.content
    assert shelf.store.load(KEY) is not None


def test_something_else_under_the_name(shelf: Shelf) -> None:
    shelf.path.unlink()
    shelf.path.mkdir()
    assert shelf.store.load(KEY) is None
    assert len(shelf.warnings) == 1


def test_a_folder_that_cannot_be_written(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    shelf.path.write_bytes(b"broken")
    monkeypatch.setattr(os, "replace", refuse)
    assert shelf.store.load(KEY) is None
    assert "Permission denied" in shelf.warnings[0] and len(shelf.warnings) == 1


def test_a_file_replaced_meanwhile_is_not_set_aside(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process saves a good state between our look at a broken one and our judgement."""
    import longmamba_mlx.states.store as module

    shelf.path.write_bytes(b"broken")
    real = module.read_state
    calls = 0

    def read(*arguments, **options):
        nonlocal calls
        calls += 1
        try:
            return real(*arguments, **options)
        except StateError:
            shelf.path.unlink()
            shelf.path.write_bytes(shelf.content)
            raise

    monkeypatch.setattr(module, "read_state", read)
    loaded = shelf.store.load(KEY)
    assert loaded is not None and calls == 2 and shelf.warnings == []


def test_a_state_file_of_the_users_own(tmp_path: Path, shelf: Shelf) -> None:
    """read_state alone renames nothing: the file may be somebody's only copy."""
    mine = tmp_path / "my book.state"
    mine.write_bytes(shelf.content)
    assert read_state(mine).key == KEY
    mine.write_bytes(shelf.content[:-1])
    with pytest.raises(StateError, match=r"my book\.state"):
        read_state(mine)
    assert mine.exists()
    with pytest.raises(StateError, match="No such file"):
        read_state(tmp_path / "none")


MAP = np.array([[0, 20, 40], [0, 11, 99]], np.int64)


def test_kept_counts_and_text_map_come_back(shelf: Shelf) -> None:
    kept = np.arange(40, dtype=np.uint8)
    shelf.store.save(KEY, shelf.state, make_thresholds(), {}, kept=kept, text_map=MAP, ids="i" * 64)
    loaded = shelf.store.load(KEY, like=make_state(9, tokens=0))
    assert loaded is not None and loaded.ids == "i" * 64
    np.testing.assert_array_equal(loaded.kept, kept)
    np.testing.assert_array_equal(loaded.text_map, MAP)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kept": np.zeros(39, np.uint8)},
        {"kept": np.zeros((40, 1), np.uint8)},
        {"kept": np.zeros(40, np.int8)},
        {"text_map": MAP[:1]},
        {"text_map": MAP[:, :0]},
        {"text_map": -MAP},
        {"text_map": MAP[:, ::-1].copy()},
        {"text_map": MAP.astype(np.int32)},
    ],
    ids=range(8),
)
def test_impossible_maps_are_refused(shelf: Shelf, wrong: dict[str, np.ndarray]) -> None:
    rewrite(shelf.path, {**make_state().arrays(), **wrong})  # type: ignore[dict-item]
    assert shelf.store.load(KEY, like=make_state(tokens=0)) is None
    assert "cannot be used" in shelf.warnings[0]


def test_a_checkpoint_is_no_state(shelf: Shelf) -> None:
    """A file with fewer tokens than its key tells of is believed only where one is asked for."""
    part = make_state(tokens=24)
    path = shelf.store.checkpoint_path(KEY)
    write_state(path, KEY, part, [], {}, kept=np.zeros(24, np.uint8))
    assert read_state(path, key=KEY, whole=False).state.tokens == 24
    with pytest.raises(StateError, match="ends before its document"):
        read_state(path, key=KEY)
    os.replace(path, shelf.path)
    assert shelf.store.load(KEY) is None and "ends before its document" in shelf.warnings[0]
    with pytest.raises(ValueError):
        shelf.store.save(KEY, part, [], {})
