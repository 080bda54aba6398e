"""The Hub client's cache on this machine: models--OWNER--NAME/{refs,snapshots,blobs}."""

from __future__ import annotations

import re
from pathlib import Path

MAIN = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BRANCH = re.compile(r"\w[\w.-]*")


def cache_folder() -> Path:
    """The folder of the client's downloads."""
    from huggingface_hub import constants  # not needed by the chat's start

    return Path(constants.HF_HUB_CACHE)


def is_offline(wanted: bool) -> bool:
    """Whether the network must not be used: `wanted`, or by the client's own HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return wanted or bool(constants.HF_HUB_OFFLINE)


def repository_folder(repository: str) -> Path:
    """The folder of a repository in the cache, existing or not."""
    return cache_folder() / f"models--{repository.replace('/', '--')}"


def cached_snapshot(folder: Path, revision: str | None = None) -> Path | None:
    """The files of a branch, tag or commit ("main" by default) in the repository's `folder`; None without any."""
    revision = revision or MAIN
    if not _COMMIT.fullmatch(revision):
        if not _BRANCH.fullmatch(revision):
            return None
        try:
            revision = (folder / "refs" / revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
    snapshot = folder / "snapshots" / revision
    return snapshot if revision.isalnum() and snapshot.is_dir() else None


def ref_file(folder: Path, name: str) -> Path | None:
    """The file in a repository's folder that says which commit a branch stands for; None for a commit itself."""
    plain = _BRANCH.fullmatch(name) and not _COMMIT.fullmatch(name)
    return folder / "refs" / name if plain else None
