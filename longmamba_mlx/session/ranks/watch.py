"""What the starting process knows of its ranks, and from that whether one of them has ended or hangs."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass, field

from longmamba_mlx.events import Event, Failed
from longmamba_mlx.session.ranks.lines import Beat, Ended, Hello, Lost, from_line

START_SECONDS = 120.0  # for all ranks to start and to connect
SILENT_SECONDS = 6.0  # without a beat a rank is taken to hang
_EXITED = re.compile(r"Node with rank (\d+) (?:exited with code (-?\d+)|was killed)")  # said by mlx.launch


@dataclass
class Watch:
    """What is known of the ranks."""

    size: int
    hellos: dict[int, Hello] = field(default_factory=dict)
    beats: dict[int, float] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    failed: dict[int, Failed] = field(default_factory=dict)
    lost: bool = False
    exits: list[tuple[int, int]] = field(default_factory=list)
    """Ranks that ended before their work, and with which code, in order."""
    started: float = field(default_factory=time.monotonic)
    looked: float = field(default_factory=time.monotonic)

    @property
    def complete(self) -> bool:
        return len(self.sent) == self.size

    @property
    def is_over(self) -> bool:
        """Whether any rank will not do its work."""
        return bool(self.failed or self.exits or self.lost)

    def hear(self, line: str) -> Event | None:
        """Take a rank's line; the event that it was, if it is for everyone."""
        found = from_line(line)
        if found is None or not 0 <= found[0] < self.size:
            return None
        rank, told = found
        self.beats.update({rank: time.monotonic()} if rank in self.beats or isinstance(told, Beat) else {})
        if isinstance(told, Hello):
            self.hellos[rank] = told
        elif isinstance(told, Ended):
            self.sent[rank] = told.sent
        elif isinstance(told, Failed):
            self.failed[rank] = told
        elif isinstance(told, Lost):
            self.lost = True
        elif not isinstance(told, Beat):
            return told
        return None

    def hear_launcher(self, line: str) -> bool:
        """Take a line of `mlx.launch` itself, or of a rank's standard error; whether it told that a rank has ended."""
        found = _EXITED.search(line)
        if found is not None:
            self.exits.append((int(found[1]), int(found[2] or -signal.SIGKILL)))
        return found is not None

    def hung(self, now: float) -> int | None:
        """A rank that gives no sign of life."""
        if now - self.looked > SILENT_SECONDS / 2:  # this process itself was held up: listen first
            self.beats = dict.fromkeys(self.beats, now)
        self.looked = now
        if len(self.beats) < self.size:
            late = now - self.started > START_SECONDS
            return next(rank for rank in range(self.size) if rank not in self.beats) if late else None
        silent = [rank for rank, beat in self.beats.items() if now - beat > SILENT_SECONDS and rank not in self.sent]
        return min(silent, default=None)
