"""list, show, remove; kills; several processes at once; the folders."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from longmamba_mlx import paths
from longmamba_mlx.errors import DiskError, UsageError
from longmamba_mlx.states.store import StateStore
from longmamba_mlx.storage import atomic
from tests.states.samples import INFO, KEY, make_state, make_thresholds, same

Record = Callable[[str, object], None]


def keys(count: int):
    return [replace(KEY, document=str(index) * 64) for index in range(count)]


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    return StateStore(tmp_path / "states", warn=pytest.fail)


def test_list_the_newest_first(store: StateStore) -> None:
    assert store.list() == ()
    for index, key in enumerate(keys(3)):
        path = store.save(key, make_state(), make_thresholds(), {**INFO, "title": f"book {index}"})
        os.utime(path, (1000 + index, 1000 + index))
    entries = store.list()
    assert [entry.info["title"] for entry in entries if entry.info] == ["book 2", "book 1", "book 0"]
    assert [entry.key for entry in entries] == keys(3)[::-1]
    assert all(entry.problem == "" and entry.nbytes == entry.path.stat().st_size for entry in entries)
    assert [entry.modified for entry in entries] == [1002, 1001, 1000]


def test_list_tells_what_is_broken_and_skips_what_is_foreign(store: StateStore) -> None:
    good, broken, renamed = (store.save(key, make_state(), [], INFO) for key in keys(3))
    broken.write_bytes(b"x")
    moved = renamed.with_name(renamed.stem[:-1] + ("0" if renamed.stem[-1] != "0" else "1") + ".safetensors")
    renamed.rename(moved)
    for name in ("note.txt", "x.safetensors", f"{'0' * 64}.safetensors.bad", f"{'0' * 64}.safetensors"):
        (good.parent / name).write_bytes(b"x")
    (good.parent / ".tmp-1-0123456789ab").mkdir()
    entries = {entry.path: entry for entry in store.list()}
    assert set(entries) == {good, broken, moved} | (
        {good.parent / f"{'0' * 64}.safetensors"} if good.parent.name == "00" else set()
    )
    assert entries[good].problem == ""
    assert "cannot be used" in entries[broken].problem and entries[broken].key is None
    assert "name" in entries[moved].problem
    assert store.remove(broken.stem).path == broken and not broken.exists()


def test_show_by_prefix(store: StateStore) -> None:
    for key in keys(30):
        store.save(key, make_state(), [], INFO)
    digests = sorted(key.digest() for key in keys(30))
    for digest in digests:
        assert store.show(digest).digest == digest
        assert store.show(f" {digest[:12].upper()} ").digest == digest
    shared = next(a[0] for a, b in pairwise(digests) if a[0] == b[0])
    with pytest.raises(UsageError, match="begin with") as caught:
        store.show(shared)
    assert caught.value.exit_code == 2 and shared in (caught.value.hint or "")


@pytest.mark.parametrize("prefix", ["", " ", "*", "?", "..", "../..", "/", "zz", "\x1b[2J", "[0-9a-f]", "a" * 500, "-"])
def test_show_and_remove_of_nothing(store: StateStore, prefix: str) -> None:
    path = store.save(KEY, make_state(), [], INFO)
    for act in (store.show, store.remove):
        with pytest.raises(UsageError) as caught:
            act(prefix)
        assert str(caught.value).isprintable()
    assert path.exists()


def test_remove(store: StateStore) -> None:
    first, second = keys(2)
    path = store.save(first, make_state(), [], INFO)
    other = store.save(second, make_state(), [], INFO)
    bad = path.with_name(path.name + ".bad")
    bad.write_bytes(b"x")
    assert store.remove(first.digest()[:10]).info == INFO
    assert not path.exists() and not bad.exists() and other.exists()
    assert path.parent == other.parent or not path.parent.exists()
    assert store.load(first) is None
    with pytest.raises(UsageError):
        store.remove(first.digest())


def test_remove_may_fail(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(KEY, make_state(), [], INFO)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(DiskError, match="Permission denied"):
        store.remove(KEY.digest())


# --------------------------------------------------------------------------------------------------- kills

SIZE = 20_000  # units: a state of 1 MB, long enough to be caught while it is written
SAVER = f"""
    import os, sys, time
    from tests.states.samples import KEY, make_state
    from longmamba_mlx.states.store import StateStore
    store = StateStore(sys.argv[1])
    states = [make_state(seed=s, units={SIZE}) for s in (0, 1)]
    for turn in range(100000):
        start = time.perf_counter()
        store.save(KEY, states[turn % 2], [], {{"turn": turn}})
        # One write: a line of an unbuffered print may itself be cut by the kill.
        os.write(1, f"{{time.perf_counter() - start}} {{turn}}\\n".encode())
"""


def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments], stdout=subprocess.PIPE, env=environment
    )


def kill_while_saving(folder: Path, dice: random.Random) -> str:
    """Kill a process that saves two states in turn -> the last turn that it had acknowledged."""
    child = start(SAVER, str(folder))
    assert child.stdout is not None
    output = b""
    # Wait for a random number of acknowledged saves, then a random moment within the next one.
    for _ in range(dice.randrange(1, 6)):
        line = child.stdout.readline()
        output += line
    select.select([], [], [], dice.random() * float(line.split()[0]))
    child.send_signal(signal.SIGKILL)
    output += child.stdout.read()
    child.wait()
    child.stdout.close()
    return output.decode().split()[-1]


def check_kills(folder: Path, count: int, record_property: Record) -> None:
    """Every time a whole state: the acknowledged one or the one that was being written."""
    dice = random.Random(count)
    store = StateStore(folder, warn=pytest.fail)
    states = [make_state(seed=seed, units=SIZE) for seed in (0, 1)]
    orphans = 0
    for _ in range(count):
        acknowledged = int(kill_while_saving(folder, dice))
        loaded = store.load(KEY, like=states[0])
        assert loaded is not None
        turn = loaded.info["turn"]
        assert turn in (acknowledged, acknowledged + 1)
        assert same(loaded.state, states[turn % 2])
        orphans += sum(path.name.startswith(".tmp-") for path in store.path(KEY).parent.iterdir())
    assert orphans > 0  # some kills did land within a save
    atomic.sweep(store.path(KEY).parent, older_than=-1)
    assert [path.name for path in store.path(KEY).parent.iterdir()] == [store.path(KEY).name]
    record_property("kills while saving", count)


def test_kill_while_saving(tmp_path: Path, record_property: Record) -> None:
    check_kills(tmp_path, 20, record_property)


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_kill_while_saving_many_times(tmp_path: Path, record_property: Record) -> None:
    check_kills(tmp_path, 500, record_property)


CROWD = """
    import random, sys
    from tests.states.samples import INFO, KEY, make_state, same
    from longmamba_mlx.states.store import StateStore
    store = StateStore(sys.argv[1], warn=lambda line: sys.exit(line))
    seed = int(sys.argv[2])
    dice = random.Random(seed)
    states = [make_state(seed=s) for s in range(3)]
    for _ in range(int(sys.argv[3])):
        if dice.random() < 0.5:
            store.save(KEY, dice.choice(states), [], INFO)
        else:
            loaded = store.load(KEY, like=states[0])
            if loaded is not None and not any(same(loaded.state, state) for state in states):
                sys.exit("a state that nobody saved")
            if dice.random() < 0.2:
                store.list()
"""


def crowd(folder: Path, processes: int, operations: int) -> None:
    children = [start(CROWD, str(folder), str(seed), str(operations)) for seed in range(processes)]
    for child in children:
        child.communicate(timeout=300)
    assert [child.returncode for child in children] == [0] * processes
    assert len(list(folder.rglob("*"))) == 2  # one folder, one file


def test_several_processes_in_one_store(tmp_path: Path, record_property: Record) -> None:
    crowd(tmp_path, 4, 40)
    record_property("processes", "4 x 40 operations")


@pytest.mark.slow
@pytest.mark.timeout(12 * 3600)
def test_eight_processes_in_one_store(tmp_path: Path, record_property: Record) -> None:
    for run in range(20):
        crowd(tmp_path / str(run), 8, 50)
    record_property("processes", "20 times 8 x 50 operations")


# ------------------------------------------------------------------------------------------------- folders


def test_home_overrides_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LONGMAMBA_HOME", str(tmp_path / "home"))
    assert paths.state_folder() == tmp_path / "home" / "states"
    assert paths.model_folder() == tmp_path / "home" / "models"
    assert paths.config_file() == tmp_path / "home" / "config.json"
    assert not (tmp_path / "home").exists()


def test_home_may_be_relative_or_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LONGMAMBA_HOME", "~/mamba")
    assert paths.state_folder() == tmp_path / "mamba" / "states"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGMAMBA_HOME", "here")
    assert paths.state_folder() == tmp_path / "here" / "states"


def test_without_home_the_systems_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LONGMAMBA_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for path in (paths.state_folder(), paths.model_folder(), paths.config_file()):
        assert path.is_relative_to(tmp_path) and "longmamba-mlx" in path.parts
    assert list(tmp_path.iterdir()) == []


def test_private_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir(mode=0o755)
    folder = tmp_path / "old" / "a b" / "📚"
    assert paths.private_folder(folder) == folder
    assert [part.stat().st_mode & 0o777 for part in (folder, folder.parent)] == [0o700] * 2
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o755
    assert paths.private_folder(folder) == folder


def test_private_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "states"):
        with pytest.raises(DiskError) as caught:
            paths.private_folder(folder)
        assert "LONGMAMBA_HOME" in (caught.value.hint or "")
