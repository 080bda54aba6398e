"""The memory map: what it shows of each stretch, and getting there."""

from __future__ import annotations

import pytest

from longmamba_mlx.tokenization.offsets import Region
from longmamba_mlx.tui.widgets.memory_map import MemoryMap, columns, scale
from longmamba_mlx.tui.widgets.prompt import Prompt
from longmamba_mlx.tui.widgets.text_pane import TextPane
from tests.tui.fakes import FakeSession
from tests.tui.helpers import make_app, ready, said, type_line, wait_until, widget_text

KEPT = [0.1] * 60 + [0.8] * 20 + [0.1] * 20


@pytest.mark.parametrize(
    ("width", "shares"),
    [(2, [0.1, 0.45]), (4, [0.1, 0.1, 0.8, 0.1]), (8, [0.1] * 4 + [0.8] * 2 + [0.1] * 2)],
)
def test_columns_are_means_of_what_falls_into_them(width: int, shares: list[float]) -> None:
    regions = tuple(Region(n * 10, n * 10 + 10, share, f"page {n}") for n, share in enumerate([0.1, 0.1, 0.8, 0.1]))
    found = columns(regions, width)
    assert [column.kept for column in found] == pytest.approx(shares)
    assert found[0].start == 0 and found[-1].end == 40 and found[-1].place in ("page 2", "page 3")


def test_one_outlier_does_not_flatten_the_scale() -> None:
    shares = [0.30 + 0.10 * (n % 5) / 4 for n in range(99)] + [1.0]
    regions = tuple(Region(n, n + 1, share, "") for n, share in enumerate(shares))
    assert scale(regions, 100) == pytest.approx((0.3, 0.4))
    flat = tuple(Region(n, n + 1, 0.5, "") for n in range(50))
    assert scale(flat, 50) == pytest.approx((0.49, 0.51))  # noise is not blown up
    assert scale((), 50) == (0.0, 1.0)
    empty = tuple(Region(n, n + 1, 0.0, "") for n in range(50))
    assert scale(empty, 50) == pytest.approx((0.0, 0.02))


def test_nothing_filtered_means_no_columns() -> None:
    assert columns((), 80) == ()


async def test_it_is_high_where_much_was_kept_and_takes_one_to_the_text() -> None:
    session = FakeSession(kept=KEPT)
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(140, 40)) as pilot:
        strip = app.chat.query_one(MemoryMap)
        assert not strip.display
        await ready(pilot, session)
        assert strip.display
        label, _, shown = widget_text(strip).partition("memory map  ")
        shown, _, legend = shown.partition("  ▁ ")
        assert label == "" and legend == "10%  █ 80% kept by the filter"
        width, left = len(shown), len("memory map  ")
        assert set(shown[: width * 6 // 10 - 1]) == {"▁"} and set(shown[width * 6 // 10 + 1 : width * 8 // 10]) == {"█"}
        await pilot.hover(MemoryMap, offset=(left + width * 7 // 10, 0))
        await wait_until(pilot, lambda: "69% of the text" in said(pilot))
        assert "80.0% kept by the filter" in said(pilot) and "CHAPTER 9" in said(pilot)
        assert "80.0% kept by the filter" in str(strip.tooltip)
        await pilot.click(MemoryMap, offset=(left + width * 7 // 10, 0))
        await wait_until(pilot, lambda: "of chapter 9" in widget_text(app.chat.query_one(TextPane)))
        await type_line(pilot, "/map")
        await wait_until(pilot, lambda: isinstance(app.focused, MemoryMap))
        await pilot.press("end", "left", "enter")
        await wait_until(pilot, lambda: "of chapter 12" in widget_text(app.chat.query_one(TextPane)))
        await pilot.press("escape")
        assert isinstance(app.focused, Prompt)


async def test_without_a_filter_there_is_no_map_and_it_says_why() -> None:
    session = FakeSession()
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot, session)
        await pilot.press("f3")
        await wait_until(pilot, lambda: "✗ There is no map: nothing was filtered" in said(pilot))
        assert not app.chat.query_one(MemoryMap).display


async def test_in_a_narrow_terminal_the_text_comes_over_the_talk_and_the_map_stays() -> None:
    session = FakeSession(kept=KEPT)
    app = make_app(session, "moby.txt")
    async with app.run_test(size=(50, 18)) as pilot:
        await ready(pilot, session)
        await pilot.press("f3", "right", "enter")
        await wait_until(pilot, lambda: "of chapter 1," in said(pilot))
        assert "█" in widget_text(app.chat.query_one(MemoryMap)) and "❯" in said(pilot)
