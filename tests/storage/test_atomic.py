"""Atomic writing: after any failure, at any call, the old content or the new one, and no draft left."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import mlx.core as mx
import pytest

from longmamba_mlx.errors import DiskError
from longmamba_mlx.storage import atomic, safetensors_header

OLD, NEW = b"old" * 100, b"new" * 5000


def write_in_pieces(draft: Path) -> None:
    with open(draft, "wb") as file:
        for start in range(0, len(NEW), 5000):
            file.write(NEW[start : start + 5000])


def test_new_content_under_the_name_and_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "state.bin"
    atomic.write_atomic(target, write_in_pieces)
    atomic.write_atomic(target, write_in_pieces)
    assert target.read_bytes() == NEW
    assert os.listdir(tmp_path) == ["state.bin"]


def test_the_draft_keeps_its_suffix_and_is_hidden_from_searches(tmp_path: Path) -> None:
    seen: list[Path] = []

    def writer(draft: Path) -> None:
        mx.save_safetensors(str(draft), {"a": mx.zeros(3)})
        seen.extend(tmp_path.glob("*.safetensors"))

    atomic.write_atomic(tmp_path / "a.safetensors", writer)
    assert seen == []
    assert "a" in safetensors_header.check_safetensors(tmp_path / "a.safetensors")


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(OLD)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic.write_atomic(tmp_path / "link", lambda draft: draft.write_bytes(NEW))
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == NEW


def test_a_file_is_for_the_user_alone_unless_said_otherwise(tmp_path: Path) -> None:
    atomic.write_text(tmp_path / "open", "ü", private=False)
    atomic.write_text(tmp_path / "private", "ü")
    assert (tmp_path / "private").read_bytes() == "ü".encode() == (tmp_path / "open").read_bytes()
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "open").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_draft_folder_is_swept_by_its_name_and_removed_at_the_end(tmp_path: Path) -> None:
    with atomic.draft_folder(tmp_path) as folder:
        (folder / "a").write_bytes(NEW)
        assert folder.stat().st_mode & 0o777 == 0o700 and folder.name.startswith(f".tmp-{os.getpid()}-")
        assert atomic.sweep(tmp_path, older_than=-1) == 0, "its process is alive"
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), atomic.draft_folder(tmp_path) as folder:
        (folder / "a").write_bytes(NEW)
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_a_name_of_255_bytes(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 127)
    atomic.write_atomic(target, lambda draft: draft.write_bytes(NEW))
    assert target.read_bytes() == NEW


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, ValueError])
def test_a_writer_that_raises_leaves_the_old_content(tmp_path: Path, trouble: type[BaseException]) -> None:
    target = tmp_path / "state.bin"
    target.write_bytes(OLD)

    def writer(draft: Path) -> None:
        draft.write_bytes(NEW[:7])
        raise trouble

    with pytest.raises(trouble):
        atomic.write_atomic(target, writer)
    assert target.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["state.bin"]


CALLS = ("mkdir", "open", "fsync", "replace")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_every_call_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The first, second, ... call of the operating system fails, until one run is clean."""
    target = tmp_path / "state.bin"
    for nth in range(1, 50):
        target.write_bytes(OLD)
        count = 0

        def failing(real, nth=nth):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count == nth:
                    raise OSError(number, os.strerror(number))
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, failing(getattr(os, name)))
            try:
                atomic.write_atomic(target, write_in_pieces)
            except DiskError as error:
                assert error.exit_code == 74
                assert str(tmp_path) in (error.hint or "")
                assert "\n" not in str(error)
            else:
                assert target.read_bytes() == NEW
                assert nth > 5
                return
        assert target.read_bytes() in (OLD, NEW)
        assert os.listdir(tmp_path) == ["state.bin"], nth
    pytest.fail("no run was clean")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_every_write_may_fail(tmp_path: Path, number: int) -> None:
    target = tmp_path / "state.bin"
    for nth in range(4):
        target.write_bytes(OLD)

        def writer(draft: Path, nth=nth) -> None:
            with open(draft, "wb") as file:
                for index in range(4):
                    if index == nth:
                        raise OSError(number, os.strerror(number))
                    file.write(NEW[:1000])

        with pytest.raises(DiskError, match=os.strerror(number)):
            atomic.write_atomic(target, writer)
        assert target.read_bytes() == OLD
        assert os.listdir(tmp_path) == ["state.bin"]


def test_a_digest_does_not_fill_the_line_that_tells_why(tmp_path: Path) -> None:
    def full(draft: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DiskError, match="No space left") as caught:
        atomic.write_atomic(tmp_path / f"{'ab' * 32}.safetensors", full)
    assert len(str(caught.value)) < 90 and "Free some space" in str(caught.value.hint)


def test_a_folder_that_cannot_be_synced_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}") or os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic.write_atomic(tmp_path / "a", lambda draft: draft.write_bytes(NEW))
    assert (tmp_path / "a").read_bytes() == NEW


def test_full_fsync_is_used_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    calls: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command: calls.append(command))
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("fsync does not reach the drive on macOS"))
    atomic.write_atomic(tmp_path / "a", lambda draft: draft.write_bytes(NEW))
    assert calls == [51, 51]


def test_fsync_takes_over_where_full_fsync_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(descriptor: int, command: int) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    calls: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fsync", calls.append)
    atomic.write_atomic(tmp_path / "a", lambda draft: draft.write_bytes(NEW))
    assert len(calls) == 2


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught:
        atomic.write_atomic(tmp_path / "none" / "a", write_in_pieces)
    assert str(tmp_path / "none") in (caught.value.hint or "")


def test_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(DiskError):
        atomic.write_atomic(tmp_path / "file" / "a", write_in_pieces)


FULL_DISK = """
    import resource, signal, sys
    from pathlib import Path
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    import mlx.core as mx, numpy as np
    from longmamba_mlx.storage import atomic, checked_safetensors
    from longmamba_mlx.errors import DiskError
    target = Path(sys.argv[1])
    for limit in (0, 1, 100, 4096, 60000, 100000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for save in (
            lambda: checked_safetensors.save_arrays(target, {"a": np.ones(50000)}, {}),
            lambda: atomic.write_atomic(target, lambda d: mx.save_safetensors(str(d), {"a": mx.ones(50000)})),
        ):
            try:
                save()
            except DiskError as error:
                assert str(target.parent) in error.hint, error.hint
            else:
                sys.exit(3)
"""


def test_disk_full(tmp_path: Path) -> None:
    """A child that may write only so many bytes: DiskError each time, the old file whole, no draft left."""
    target = tmp_path / "state.safetensors"
    target.write_bytes(OLD)
    run_child(FULL_DISK, str(target))
    assert target.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["state.safetensors"]


def run_child(script: str, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


# ------------------------------------------------------------------------------------------------ orphans


def gone_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def orphan(folder: Path, process: int, age: float, now: float = 1e9) -> Path:
    draft = folder / f".tmp-{process}-0123456789ab"
    draft.mkdir()
    (draft / "a.safetensors").write_bytes(b"x")
    os.utime(draft, (now - age, now - age))
    return draft


def test_sweep_takes_old_orphans_only(tmp_path: Path) -> None:
    gone = gone_process()
    old = orphan(tmp_path, gone, 4000)
    assert atomic.sweep(tmp_path, now=1e9) == 1
    assert not old.exists()
    young = orphan(tmp_path, gone, 3000)
    mine = orphan(tmp_path, os.getpid(), 1e6)
    init = orphan(tmp_path, 1, 1e6)
    assert atomic.sweep(tmp_path, now=1e9) == 0
    assert young.exists() and mine.exists() and init.exists()


def test_sweep_touches_nothing_else(tmp_path: Path) -> None:
    gone = gone_process()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_bytes(b"x")
    folder = tmp_path / "states"
    folder.mkdir()
    (folder / f".tmp-{gone}-0123456789ab").symlink_to(elsewhere)
    (folder / ".tmp-x-0123456789ab").mkdir()
    (folder / f".tmp-{gone}-0123456789abc").mkdir()
    (folder / f".tmp-{gone}-ba9876543210").write_bytes(b"a file")
    assert atomic.sweep(folder, older_than=-1) == 0
    assert len(os.listdir(folder)) == 4
    assert (elsewhere / "kept").exists()


def test_sweep_of_a_missing_folder(tmp_path: Path) -> None:
    assert atomic.sweep(tmp_path / "none") == 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_a_huge_process_number_is_nobody(tmp_path: Path) -> None:
    orphan(tmp_path, 9999999999, 1e6)
    assert atomic.sweep(tmp_path, now=1e9) == 1
