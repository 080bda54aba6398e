"""Follow a download of the Hub's client through its progress bars, and stop it from there."""

from __future__ import annotations

from threading import Lock
from typing import Any

from longmamba_mlx.conversion.report import Report
from longmamba_mlx.errors import StoppedError

_BYTES_WRITTEN = "huggingface_hub.snapshot_download"  # the client's name for the one bar that counts every byte once


class DownloadProgress:
    """Counts the bytes of a download on top of `done` of `total`, from several threads.

    Once `stopped` is set, the client's threads end with their next block.
    """

    def __init__(self, report: Report, what: str, done: int, total: int) -> None:
        self.stopped = False
        self._report, self._what, self._done, self._total = report, what, done, total
        self._lock = Lock()

    def advance(self, count: float) -> None:
        """Add `count` bytes. Raises StoppedError, or what the report raises."""
        if self.stopped:
            raise StoppedError("The download was stopped.")
        with self._lock:
            self._done += int(count)
            self.tell()

    def tell(self) -> None:
        """Report where the download is."""
        self._report.progress(self._what, min(self._done, self._total), self._total)

    def bar_class(self) -> type[Any]:
        """The class that the client takes for its progress bars."""
        from huggingface_hub.utils.tqdm import tqdm

        progress = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *args: Any, **options: Any) -> None:
                self._counts = options.get("name") == _BYTES_WRITTEN
                super().__init__(*args, **options | {"disable": True})

            def update(self, n: float | None = 1) -> bool | None:
                progress.advance(n or 0 if self._counts else 0)
                return None

        return Bar
