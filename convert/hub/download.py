"""Download a repository's files through the Hub's client, and compare their sha256: the client compares sizes only."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from longmamba_mlx.conversion.hub.cache import (
    MAIN,
    cache_folder,
    cached_snapshot,
    is_offline,
    ref_file,
    repository_folder,
)
from longmamba_mlx.conversion.hub.errors import hub_errors, not_here
from longmamba_mlx.conversion.hub.files import needed
from longmamba_mlx.conversion.hub.progress import DownloadProgress
from longmamba_mlx.conversion.interruptible import interruptible
from longmamba_mlx.conversion.report import Report, Silent
from longmamba_mlx.errors import DiskError, ModelError
from longmamba_mlx.ground.sizes import format_size
from longmamba_mlx.storage.atomic import sha256_file, write_text

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONFIG = "config.json"
_SPARE = 64 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; size 0: unknown; sha256 (hex) where the Hub keeps one, as it does for large files."""

    name: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be downloaded: files of one commit (`revision`, 40 hex digits), which `asked` names."""

    repository: str
    asked: str
    revision: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Downloaded files in a folder, and the commit they are of."""

    folder: Path
    repository: str
    revision: str


def snapshot(
    repository: str,
    *,
    revision: str | None,
    offline: bool,
    report: Report,
    choose: Callable[[Iterable[str]], list[str]] = needed,
    check_config: Callable[[Path], object] | None = None,
) -> Snapshot:
    """The files of a repository that `choose` picks, on this machine. Raises ModelError with a hint.

    Offline, what the client's cache holds. A file whose sha256 is not the Hub's is fetched once more, and an
    error if that does not help. `check_config` is called with a folder that holds config.json before anything large
    is downloaded, and may raise.
    """
    if is_offline(offline):
        return _cached(repository, revision)
    plan = interruptible(
        partial(plan_download, repository, revision=revision, choose=choose), lambda: report.progress(repository, 0, 0)
    )
    config = tuple(file for file in plan.files if file.name == _CONFIG)
    if check_config is not None and config:
        check_config(download(Plan(plan.repository, plan.asked, plan.revision, config), Silent()).folder)
    report.line(f"{repository}, commit {plan.revision[:12]}: {len(plan.files)} files, {format_size(plan.size)}")
    return download(plan, report)


def plan_download(
    repository: str, *, revision: str | None, choose: Callable[[Iterable[str]], list[str]] = needed
) -> Plan:
    """Which files, how large, of which commit: asks the Hub and downloads nothing. Raises ModelError."""
    import huggingface_hub

    with hub_errors(repository, revision):
        info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = {entry.rfilename: entry for entry in info.siblings or []}
    chosen = []
    for name in choose(files):
        entry = files[name]
        digest = None if entry.lfs is None else entry.lfs.sha256
        chosen.append(RemoteFile(name, int(entry.size or 0), digest))
    if not chosen or not info.sha:
        raise ModelError(f"{repository} holds no model files.", hint="Check the spelling of its name.")
    return Plan(repository, revision or MAIN, info.sha, tuple(chosen))


def download(plan: Plan, report: Report) -> Snapshot:
    """Fetch what is not in the client's cache yet, and check it. Raises ModelError, DiskError, what `report` raises."""
    _require_space(plan)
    folder = _fetch(plan, plan.files, report)
    damaged = _damaged(plan, folder, report)
    if damaged:
        _fetch(plan, damaged, report, again=True)
        damaged = _damaged(plan, folder, report)
    if damaged:
        raise ModelError(
            f"{damaged[0].name} of {plan.repository} arrived damaged twice: its sha256 is not the Hub's.",
            hint="Check the connection (a proxy?) and the disk, then try again.",
        )
    report.progress(plan.repository, plan.size, plan.size)
    if (ref := ref_file(folder.parents[1], plan.asked)) is not None:
        ref.parent.mkdir(parents=True, exist_ok=True)
        write_text(ref, plan.revision, private=False)  # so that the name is known offline
    return Snapshot(folder, plan.repository, plan.revision)


def _fetch(plan: Plan, files: Sequence[RemoteFile], report: Report, *, again: bool = False) -> Path:
    """Download `files` of the plan; the folder that then holds them."""
    import huggingface_hub

    folder = repository_folder(plan.repository) / "snapshots" / plan.revision
    missing = [file for file in files if again or not (folder / file.name).is_file()]
    progress = DownloadProgress(report, plan.repository, plan.size - sum(file.size for file in missing), plan.size)

    def fetch() -> Path:
        with hub_errors(plan.repository, plan.revision):
            return Path(
                huggingface_hub.snapshot_download(
                    plan.repository,
                    revision=plan.revision,
                    allow_patterns=[_pattern(file.name) for file in files],
                    force_download=again,
                    tqdm_class=progress.bar_class(),
                )
            )

    try:
        return interruptible(fetch, progress.tell)
    finally:
        progress.stopped = True


def _pattern(name: str) -> str:
    """The pattern that matches this name alone."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _damaged(plan: Plan, folder: Path, report: Report) -> list[RemoteFile]:
    """The files whose digest differs from the Hub's."""
    return interruptible(
        lambda: [file for file in plan.files if not _is_whole(folder / file.name, file)],
        lambda: report.progress(plan.repository, plan.size, plan.size),
    )


def _is_whole(path: Path, file: RemoteFile) -> bool:
    if not path.is_file() or (file.size and path.stat().st_size != file.size):
        return False
    return file.sha256 is None or sha256_file(path) == file.sha256


def _require_space(plan: Plan) -> None:
    there = cache_folder()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    folder = repository_folder(plan.repository) / "snapshots" / plan.revision
    if free < plan.size + _SPARE and not all((folder / file.name).is_file() for file in plan.files):
        raise DiskError(
            f"{plan.repository} is {format_size(plan.size)}, and the disk has {format_size(free)} left.",
            hint="Free some space, or set HF_HOME to a folder on another disk.",
        )


def _cached(repository: str, revision: str | None) -> Snapshot:
    folder = cached_snapshot(repository_folder(repository), revision)
    if folder is None:
        raise not_here(repository)
    for path in folder.iterdir():
        # The cache names the content of large files by its sha256.
        name = path.readlink().name if path.is_symlink() else ""
        if path.name in needed([path.name]) and _DIGEST.fullmatch(name) and sha256_file(path) != name:
            raise ModelError(
                f"{path.name} of {repository} is damaged in the Hub client's cache.",
                hint="Connect and convert again; it is then fetched anew.",
            )
    return Snapshot(folder, repository, folder.name)
