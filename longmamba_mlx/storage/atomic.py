"""Write files atomically, remove the drafts of killed writers, and take digests of files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from longmamba_mlx.errors import DiskError

ORPHAN_AGE = 3600.0  # seconds; the process of a younger draft may run on another machine that shares the folder
_SHOWN_NAME = 40  # characters of a file name in an error message
_DRAFT = re.compile(r"\.tmp-(\d{1,10})-[0-9a-f]{12}")


def write_atomic(path: str | Path, writer: Callable[[Path], object], *, private: bool = True) -> None:
    """Call `writer` with a draft path, sync what it wrote to disk, and rename it to `path`.

    After a crash at any moment `path` holds either the old content or the new. The draft has the final file name and
    lies in a hidden folder beside `path`: writers such as `mx.save_safetensors` append a missing suffix, and no search
    for `*.safetensors` must find an orphan. A symbolic link is written through. Only the user may read the file (0600),
    whatever the umask and the file's former mode; with `private=False`, for models and reports, the umask decides.

    Raises DiskError when writing fails; any other exception of the writer passes. The draft is removed in both cases.
    """
    target = Path(os.path.realpath(path))
    with _disk_errors(target), draft_folder(target.parent) as folder:
        draft = folder / target.name
        writer(draft)
        if private:
            draft.chmod(0o600)
        _sync(draft)
        os.replace(draft, target)
        _sync(target.parent)


def write_text(path: str | Path, text: str, *, private: bool = True) -> None:
    """Write `text` as UTF-8, like `write_atomic`. Raises DiskError."""
    write_atomic(path, lambda draft: draft.write_text(text, encoding="utf-8"), private=private)


@contextmanager
def draft_folder(parent: Path, mode: int = 0o700) -> Iterator[Path]:
    """Create a hidden folder in `parent` for drafts, named so that `sweep` knows it, and remove it at the end."""
    folder = parent / f".tmp-{os.getpid()}-{secrets.token_hex(6)}"
    try:
        os.mkdir(folder, mode)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _raise_disk_error(target, error.errno, error.strerror or str(error))
    except RuntimeError as error:
        # MLX reports a full disk as RuntimeError("[write] Unable to write ...").
        if re.search(r"\[(write|save_\w+)\]|[Uu]nable to (write|open)", str(error)) is None:
            raise
        _raise_disk_error(target, None, "the data could not be written to the disk")


def _raise_disk_error(target: Path, number: int | None, reason: str) -> NoReturn:
    folder = repr(str(target.parent))
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = f"Free some space on the disk that holds {folder}, or choose another folder."
    elif number in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = f"Make the folder {folder} writable, or choose another one."
    elif number in (errno.ENOENT, errno.ENOTDIR):
        hint = f"Create the folder {folder} first, or choose another one."
    else:
        hint = f"Check the disk that holds {folder} and the space left on it."
    # The end of a long name, such as a digest, would push the reason out of the line.
    name = target.name if len(target.name) <= _SHOWN_NAME else f"{target.name[:_SHOWN_NAME]}…"
    raise DiskError(f"Cannot write {name!r}: {reason}.", hint=hint) from None


def _sync(path: Path) -> None:
    """Flush a file, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync_descriptor(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder, and offer no alternative; a file must be synced.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _sync_descriptor(descriptor: int) -> None:
    """On macOS fsync leaves the data in the drive's cache; F_FULLFSYNC does not, but some volumes lack it."""
    import fcntl

    command = getattr(fcntl, "F_FULLFSYNC", None)
    if command is not None:
        with suppress(OSError):
            fcntl.fcntl(descriptor, command)
            return
    os.fsync(descriptor)


def sweep(folder: str | Path, *, older_than: float = ORPHAN_AGE, now: float | None = None) -> int:
    """Remove the drafts that killed writers left in `folder`: over `older_than` seconds old, their process gone.

    Returns how many were removed. Never raises: what cannot be removed is left for the next sweep.
    """
    removed = 0
    moment = time.time() if now is None else now
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _DRAFT.fullmatch(entry.name)
            if match is None or not entry.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError):
                age = moment - entry.stat(follow_symlinks=False).st_mtime
                if age > older_than and not _is_alive(int(match[1])):
                    shutil.rmtree(entry.path)
                    removed += 1
    return removed


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # another user's process
    return True


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hex. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
