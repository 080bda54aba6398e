"""Benchmarks: what they compute, on tiny shapes; never how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from longmamba_mlx.bench import engines, random_checkpoint, report, rounds, suites
from longmamba_mlx.bench.random_checkpoint import Shape
from longmamba_mlx.bench.rounds import LIMIT, OURS, Comparison, Measured
from longmamba_mlx.cli.app import app
from longmamba_mlx.errors import UsageError

TINY = {
    "mamba": Shape("mamba", d_model=32, n_layer=2, vocab_size=64),
    "mamba2": Shape("mamba2", d_model=32, n_layer=2, vocab_size=64, d_state=64, headdim=32),
}


@pytest.mark.parametrize("family", TINY)
def test_our_engine_steps_on_where_prefill_ended(family: str, tmp_path: Path) -> None:
    engine = engines.Ours(random_checkpoint.make(TINY[family], tmp_path / family), 1)
    ids = np.arange(1, 40, dtype=np.uint32)
    whole = engine.prefill(ids)
    engine.prefill(ids[:-1])
    np.testing.assert_allclose(engine.step(int(ids[-1])), whole, atol=1e-4 * np.abs(whole).max())
    assert whole.shape == (64,) and np.std(whole) > 0


@pytest.mark.parametrize("family", TINY)
def test_engines_take_turns_and_agree(family: str, tmp_path: Path) -> None:
    folder = random_checkpoint.make(TINY[family], tmp_path / family)
    lines: list[str] = []
    comparison = Comparison(TINY[family], folder, (OURS, "mlx-lm"), (24,), decode=4, rounds=1, limit_seconds=0)
    measured = list(rounds.interleaved(comparison, lines.append))
    assert [(one.engine, one.work) for one in measured] == [
        (engine, work) for engine in (LIMIT, OURS, "mlx-lm") for work in ("prefill", "decode")
    ]
    assert all(one.tokens_per_second > 0 for one in measured)
    peer = next(one for one in measured if one.engine == "mlx-lm" and one.work == "prefill")
    assert 0 < peer.error < 1e-3  # the same weights give the same logits, by another road
    assert peer.peak_rss_mib > 10


def test_lengths_beyond_patience_are_left_out_and_told(tmp_path: Path) -> None:
    folder = random_checkpoint.make(TINY["mamba2"], tmp_path / "m")
    lines: list[str] = []
    comparison = Comparison(TINY["mamba2"], folder, (OURS,), (16, 64), decode=0, rounds=1, patience=0, limit_seconds=0)
    measured = [one for one in rounds.interleaved(comparison, lines.append) if one.engine == OURS]
    assert [one.tokens for one in measured] == [16]
    assert any("not run at 64 tokens" in line for line in lines)


def test_ratios_are_taken_within_a_round() -> None:
    measured = [Measured(OURS, "prefill", 8, i, rate) for i, rate in enumerate((10.0, 20.0, 40.0))]
    measured += [Measured("peer", "prefill", 8, i, rate) for i, rate in enumerate((5.0, 4.0, 10.0))]
    rows = {row["engine"]: row for row in rounds.summary(measured, "mamba")}
    assert rows["peer"]["ratios"] == [2.0, 5.0, 4.0]
    assert rows["peer"]["ours_times_faster"] == 4.0
    assert (rows[OURS]["tokens_per_second"], rows[OURS]["lowest"], rows[OURS]["highest"]) == (20.0, 10.0, 40.0)


def test_growth_is_the_slope_on_logarithms() -> None:
    assert suites.growth([(10, 3.0), (100, 300.0), (1000, 30_000.0)]) == pytest.approx(2.0)
    assert suites.growth([(10, 3.0)]) is None


def test_reading_rows_name_filter_memory_and_cost() -> None:
    rows = suites.prefill(["demo"], [400, 2048], rounds=1, threads=1, log=lambda line: None)
    assert [(row["filter"], row["tokens"], row["filtered"]) for row in rows] == [
        ("off", 400, False), ("longmamba", 400, False), ("off", 2048, False), ("longmamba", 2048, True),
    ]  # fmt: skip
    assert all(row["filter_cost"] is None for row in rows if row["filter"] == "off")
    assert all(row["peak_rss_mib"] >= row["loaded_rss_mib"] > 0 for row in rows)
    # One thread: no more processor time than time, but for the grain of the clocks.
    assert all(row["tokens_per_cpu_second"] > 0.9 * row["tokens_per_second"] > 0 for row in rows)


def test_reopening_is_timed_inside_and_from_the_shell() -> None:
    (row,) = suites.reopen(["demo"], rounds=1, threads=1, log=lambda line: None)
    assert 0 < row["state_ready_seconds"] < row["shell_to_answer_seconds"]
    assert row["tokens"] > 5_000


def test_json_holds_machine_versions_and_rows(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["bench", "prefill", "--model", "demo", "--lengths", "64", "--rounds", "1", "--json", str(tmp_path / "b.json")],
    )
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "b.json").read_text())
    assert set(document) == {"machine", "versions", "settings", "rows"}
    assert {"engine", "work", "tokens", "tokens_per_second", "peak_rss_mib"} <= set(document["rows"][0])
    assert document["machine"]["cores"] >= 1 and "numpy" in document["versions"]


def test_tables_leave_out_empty_columns() -> None:
    rows = [{"engine": "a", "work": "prefill", "tokens": 2048, "tokens_per_second": 1234.5, "peak_rss_mib": None}]
    assert report.table(rows, markdown=True) == (
        "| engine | work | tokens | tokens/s |\n| --- | --- | --- | --- |\n| a | prefill | 2,048 | 1,234.5 |"
    )


@pytest.mark.parametrize(
    "arguments", [["prefill", "--lengths", "x"], ["peers", "--engines", "nobody"], ["peers", "--families", "rwkv"]]
)
def test_wrong_options_are_usage_errors(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(result.exception, UsageError) or result.exit_code == 2


def test_llama_cpp_gets_every_tensor_in_its_own_layout(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from longmamba_mlx.bench.gguf_file import write_gguf

    folder = random_checkpoint.make(TINY["mamba2"], tmp_path / "m")
    named = {one.name: one.data for one in gguf.GGUFReader(write_gguf(folder)).tensors}
    original = random_checkpoint.weights(TINY["mamba2"])
    np.testing.assert_allclose(named["blk.1.ssm_a"].ravel(), -np.exp(original["backbone.layers.1.mixer.A_log"]))
    np.testing.assert_array_equal(
        named["blk.0.ssm_conv1d.weight"], original["backbone.layers.0.mixer.conv1d.weight"][:, 0]
    )
    assert len(named) == len(original)


def test_plots_draw_lines_over_lengths_and_bars_for_one(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"family": "mamba", "engine": "a", "work": work, "tokens": tokens, "tokens_per_second": 5.0}
            for work, tokens in (("prefill", 8), ("prefill", 16), ("decode", 4))]  # fmt: skip
    report.plot(rows, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_plot_library_is_told_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*arguments: object, **options: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("prefill", "peers"):
        monkeypatch.setattr(suites, name, measured)
        result = CliRunner().invoke(app, ["bench", name, "--plot", "p.png"])
        assert isinstance(result.exception, UsageError) and "matplotlib" in str(result.exception)
