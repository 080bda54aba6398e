"""Model files from the Hugging Face Hub: only those a conversion reads, one commit, every byte checked.

The Hub's client downloads and caches; it compares sizes only, so the digests are compared here.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from longmamba_mlx.conversion.interruptible import attended
from longmamba_mlx.conversion.report import Report
from longmamba_mlx.errors import DiskError, LongMambaError, ModelError, StoppedError
from longmamba_mlx.models.weight_files import INDEX
from longmamba_mlx.sizes import format_size
from longmamba_mlx.storage.atomic import sha256_file, write_text

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
TORCH_INDEX = "pytorch_model.bin.index.json"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONFIGS = ("config.json", "generation_config.json", "params.json")
# In this order: the first kind that is there is taken, and no other.
_WEIGHTS = (
    re.compile(r"model(-\d+-of-\d+)?\.safetensors"),
    re.compile(r"(?!consolidated|adapter|longmamba)[^/]+\.safetensors"),
    re.compile(r"consolidated[^/]*\.safetensors"),
    re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin"),
)
_MAIN = "main"
_SPARE = 64 << 20


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; size 0: not told; sha256 (hex) where the Hub keeps one, as it does for large files."""

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


def is_offline(wanted: bool) -> bool:
    """Whether the network is not to be touched: asked for, or by the client's own HF_HUB_OFFLINE."""
    from huggingface_hub import constants

    return wanted or bool(constants.HF_HUB_OFFLINE)


def needed(names: Iterable[str]) -> list[str]:
    """Of a repository's files those that a conversion reads: configs, tokenizer, one kind of weights."""
    there = sorted(names)
    wanted = [name for name in there if name in _CONFIGS or name in TOKENIZER_FILES]
    for kind in _WEIGHTS:
        weights = [name for name in there if kind.fullmatch(name)]
        if weights:
            index = TORCH_INDEX if weights[0].endswith(".bin") else INDEX
            return sorted({*wanted, *weights, *({index} & set(there))})
    return wanted


def tokenizer_files(names: Iterable[str]) -> list[str]:
    """Of a repository's files those that make its tokenizer."""
    return sorted(set(names) & set(TOKENIZER_FILES))


def snapshot(
    repository: str,
    *,
    revision: str | None,
    offline: bool,
    report: Report,
    choose: Callable[[Iterable[str]], list[str]] = needed,
) -> Snapshot:
    """The files of a repository that `choose` picks, on this machine. Raises ModelError with a hint.

    Offline, what the client's cache holds. A file whose sha256 is not the Hub's is fetched once more, and an
    error if that does not help.
    """
    if is_offline(offline):
        return _cached(repository, revision)
    ask = partial(plan_download, repository, revision=revision, choose=choose)
    plan = attended(ask, lambda: report.progress(repository, 0, 0))
    report.line(f"{repository}, commit {plan.revision[:12]}: {len(plan.files)} files, {format_size(plan.size)}")
    return download(plan, report)


def plan_download(
    repository: str, *, revision: str | None, choose: Callable[[Iterable[str]], list[str]] = needed
) -> Plan:
    """Which files, how large, of which commit: asks the Hub and downloads nothing. Raises ModelError."""
    import huggingface_hub

    with _hub_errors(repository, revision):
        info = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = {entry.rfilename: entry for entry in info.siblings or []}
    chosen = []
    for name in choose(files):
        entry = files[name]
        digest = None if entry.lfs is None else entry.lfs.sha256
        chosen.append(RemoteFile(name, int(entry.size or 0), digest))
    if not chosen or not info.sha:
        raise ModelError(f"{repository} holds no model files", hint="check the spelling of its name")
    return Plan(repository, revision or _MAIN, info.sha, tuple(chosen))


def download(plan: Plan, report: Report) -> Snapshot:
    """Fetch what is not in the client's cache yet, and check it. Raises ModelError, DiskError, what `report` raises."""
    from huggingface_hub import constants

    _require_space(Path(constants.HF_HUB_CACHE), plan)
    done = 0
    folder = Path()
    for file in plan.files:
        path = _fetch(plan, file, report, done)
        done += file.size
        report.progress(plan.repository, done, plan.size)
        folder = path.parent
    _remember_name(folder, plan)
    return Snapshot(folder, plan.repository, plan.revision)


def _remember_name(folder: Path, plan: Plan) -> None:
    """Note in the client's cache which commit a branch stood for, so that its name is known offline."""
    if plan.asked != plan.revision and re.fullmatch(r"\w[\w.-]*", plan.asked):
        refs = folder.parents[1] / "refs"
        refs.mkdir(exist_ok=True)
        write_text(refs / plan.asked, plan.revision)


def _fetch(plan: Plan, file: RemoteFile, report: Report, before: int) -> Path:
    for again in (False, True):
        counter = _Counter(report, plan, before)
        try:
            path = attended(partial(_get, plan, file, counter, again), counter.tell)
        finally:
            counter.wanted = False
        if path is not None:
            return path
    raise ModelError(
        f"{file.name} of {plan.repository} arrived damaged twice: its sha256 is not the Hub's",
        hint="check the connection (a proxy?) and the disk, then try again",
    )


def _get(plan: Plan, file: RemoteFile, counter: _Counter, again: bool) -> Path | None:
    """Where the file lies now; None when it is not what the Hub says it is."""
    import huggingface_hub

    with _hub_errors(plan.repository, plan.revision):
        path = Path(
            huggingface_hub.hf_hub_download(
                plan.repository,
                file.name,
                revision=plan.revision,
                force_download=again,
                tqdm_class=counter.bar_class(),
            )
        )
    return path if _is_whole(path, file) else None


def _is_whole(path: Path, file: RemoteFile) -> bool:
    if file.size and path.stat().st_size != file.size:
        return False
    return file.sha256 is None or sha256_file(path) == file.sha256


class _Counter:
    """Counts bytes of one file on top of those done before. A client that is not wanted any more ends with the next."""

    def __init__(self, report: Report, plan: Plan, before: int) -> None:
        self.wanted = True
        self._report = report
        self._plan = plan
        self._done = before

    def advance(self, count: float) -> None:
        if not self.wanted:
            raise StoppedError("The download was stopped.")
        self._done += int(count)
        self.tell()

    def tell(self) -> None:
        self._report.progress(self._plan.repository, self._done, self._plan.size)

    def bar_class(self) -> type[Any]:
        """What the client believes to be a progress bar."""
        from huggingface_hub.utils.tqdm import tqdm

        counter = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options | {"disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                counter.advance(n or 0)
                return None

            # With these two the client counts a file's bytes once, not again as they come in from its new storage.
            def update_transfer(self, _: float) -> None:
                """Not shown."""

            def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
                """Not shown."""

        return Bar


def _require_space(cache: Path, plan: Plan) -> None:
    there = cache
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < plan.size + _SPARE and not _holds(cache, plan):
        raise DiskError(
            f"{plan.repository} is {format_size(plan.size)}, and the disk has {format_size(free)} left",
            hint="free some space, or set HF_HOME to a folder on another disk",
        )


def _holds(cache: Path, plan: Plan) -> bool:
    folder = cache / f"models--{plan.repository.replace('/', '--')}" / "snapshots" / plan.revision
    return all((folder / file.name).is_file() for file in plan.files)


def _cached(repository: str, revision: str | None) -> Snapshot:
    import huggingface_hub

    with _hub_errors(repository, revision):
        folder = Path(huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True))
    for path in folder.iterdir():
        # The cache names the content of large files by its sha256.
        name = path.readlink().name if path.is_symlink() else ""
        if path.name in needed([path.name]) and _DIGEST.fullmatch(name) and sha256_file(path) != name:
            raise ModelError(
                f"{path.name} of {repository} is damaged in the Hub client's cache",
                hint="connect and convert again; it is then fetched anew",
            )
    return Snapshot(folder, repository, folder.name)


@contextmanager
def _hub_errors(repository: str, revision: str | None) -> Iterator[None]:
    """Whatever the client raises, as one line and a hint."""
    from huggingface_hub import errors

    try:
        yield
    except LongMambaError:  # ours, raised while the client was telling how far it is
        raise
    except errors.GatedRepoError as error:
        raise ModelError(
            f"{repository} asks you to accept its terms first",
            hint="accept them on its page, then log in with: hf auth login",
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        where = f" at revision {revision}" if revision else ""
        raise ModelError(
            f"no model {repository}{where} on the Hub", hint="check the spelling; private models need a login"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelError(
            f"{repository} is not on this machine and the Hub was not reached",
            hint="connect once, or give the path of a model folder",
        ) from error
    except Exception as error:  # which HTTP library's errors come out changes with the client's version
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        if re.search("Connect|Timeout", type(error).__name__):
            raise ModelError(
                f"{repository} is not on this machine and the Hub was not reached: {reason}",
                hint="connect and try again, or give the path of a model folder",
            ) from error
        raise ModelError(
            f"downloading {repository} failed: {reason}",
            hint="try again: files that are whole are kept; --offline takes what was downloaded before",
        ) from error
