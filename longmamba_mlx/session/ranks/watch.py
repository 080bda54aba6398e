"""The starter's view of its ranks, from which it detects one that has ended or hangs."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass, field

from longmamba_mlx.events import Event, Failed
from longmamba_mlx.session.ranks.lines import Beat, Ended, Hello, Joined, Lost, Ready, from_line

START_SECONDS = 120.0  # for all ranks to start and to connect
SILENT_SECONDS = 6.0  # without a beat a rank is taken to hang
JOINING_SECONDS = 8.5  # the same while it connects
_EXITED = re.compile(r"Node with rank (\d+) (?:exited with code (-?\d+)|was killed)")  # said by mlx.launch


@dataclass
class Watch:
    """What is known of the ranks."""

    size: int
    hellos: dict[int, Hello] = field(default_factory=dict)
    beats: dict[int, float] = field(default_factory=dict)
    ready: set[int] = field(default_factory=set)
    joined: set[int] = field(default_factory=set)
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
    def turns(self) -> int:
        """How often the ranks are due a byte of input: once all are ready, and after each that has joined."""
        return (len(self.ready) == self.size) + len(self.joined)

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
        self.beats[rank] = time.monotonic()
        if isinstance(told, Hello):
            self.hellos[rank] = told
        elif isinstance(told, Ready):
            self.ready.add(rank)
        elif isinstance(told, Joined):
            self.joined.add(rank)
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
        late = now - self.started > START_SECONDS
        silent = [rank for rank in range(self.size) if rank not in self.sent and self._is_silent(rank, now)]
        missing = [rank for rank in range(self.size) if late and rank not in self.joined]
        return min(silent or missing, default=None)

    def _is_silent(self, rank: int, now: float) -> bool:
        joining = rank in self.ready and rank not in self.joined
        return rank in self.beats and now - self.beats[rank] > (JOINING_SECONDS if joining else SILENT_SECONDS)
