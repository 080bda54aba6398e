"""Numbers of bytes as people read them."""

from __future__ import annotations

import pytest

from longmamba_mlx.ground.sizes import format_size


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (12_600_000, "12.6 MB"),
        (99_949_999, "99.9 MB"),
        (99_950_000, "100 MB"),
        (167_800_000, "168 MB"),
        (999_600_000, "1.0 GB"),
        (8_000_000_000, "8.0 GB"),
        (2 * 10**12, "2.0 TB"),
        (1234 * 10**12, "1234.0 TB"),
    ],
)
def test_sizes_are_decimal(nbytes: int, text: str) -> None:
    assert format_size(nbytes) == text
