"""Folders and files of this application. LONGMAMBA_HOME, when set, contains all of them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from longmamba_mlx.errors import DiskError

APPLICATION = "longmamba-mlx"


def home() -> Path | None:
    """The folder named by LONGMAMBA_HOME, absolute; None when it is unset or empty."""
    value = os.environ.get("LONGMAMBA_HOME", "")
    return Path(value).expanduser().absolute() if value else None


def state_folder() -> Path:
    """Stored states of documents: user data, so not in a cache that the system may empty."""
    return _data() / "states"


def model_folder() -> Path:
    """Converted models, each in a folder of its own."""
    return _data() / "models"


def conversations_file() -> Path:
    """The chat's conversations and its settings, one SQLite file."""
    return _data() / "talks.sqlite"


def calibration_folder() -> Path:
    """Calibrations of models whose own folder has none, measured on the first document read."""
    return _data() / "calibrations"


def evaluation_folder() -> Path:
    """Measured samples and published test data, from which an interrupted `eval` resumes."""
    return _data() / "evaluations"


def benchmark_folder() -> Path:
    """Random checkpoints that benchmarks run on: a cache, which may be emptied at any time."""
    import platformdirs

    return (home() or platformdirs.user_cache_path(APPLICATION, appauthor=False)) / "benchmarks"


def config_file() -> Path:
    """The user's settings, such as the default model."""
    import platformdirs

    folder = home() or platformdirs.user_config_path(APPLICATION, appauthor=False)
    return folder / "config.json"


def _data() -> Path:
    import platformdirs

    return home() or platformdirs.user_data_path(APPLICATION, appauthor=False)


def private_file(path: Path) -> Path:
    """Create an empty file, for the user only (0600), unless it exists; for writers that open it themselves.

    One that exists and that others may read is made private. Raises OSError.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    make_private(path)
    return path


def make_private(path: Path) -> None:
    """Take what others may do with a file of this user (0600); earlier versions left some to the umask.

    Links are left alone, and so is what cannot be changed.
    """
    with suppress(OSError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
            path.chmod(0o600)


def private_folder(folder: Path) -> Path:
    """Create `folder` and its missing parents, accessible by the user only (0700). Raises DiskError.

    An existing folder keeps its permissions, which are the user's choice.
    """
    try:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(None, "it is a file")
    except OSError as error:
        raise DiskError(
            f"Cannot create the folder {str(folder)!r}: {error.strerror}.",
            hint="Set LONGMAMBA_HOME to a folder that can be written.",
        ) from None
    return folder
