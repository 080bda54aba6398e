"""No filter."""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.filtering.policies.base import FIRST_RECORD, Policy


@dataclass(frozen=True, kw_only=True)
class Off(Policy):
    """Filter nothing."""

    name = "off"

    def record(self) -> dict[str, object]:
        return {**FIRST_RECORD, "protect_first": 0, "protect_last": 0, "mode": self.name}

    def is_active(self, training_length: int, total_length: int) -> bool:
        return False
