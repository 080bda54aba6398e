"""Draw the figures of README.md, docs/method.md and docs/results.md: `python benchmarks/figures.py` (needs matplotlib).

`method.png`: the step sizes of one global head over a long text and over one of its sentences, with what is kept.
`units.png`: how much of the first token each head still holds after a training window, and which heads are global.
`budget.png`: the sum of that head's step sizes along the text, all tokens and kept tokens, and a training window's sum.
`far.png`: answers right by document length, filter off and on, from docs/results/*.json, as the next two.
`policies.png`: every policy and baseline on the same documents, at two lengths.
`kept.png`: how many tokens of a long document the heads that remember have kept, by filter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import mlx.core as mx
import numpy as np

from longmamba_mlx.builtin import sample_document
from longmamba_mlx.documents import Document
from longmamba_mlx.filtering.decay import log_decay
from longmamba_mlx.session.api import load

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "figures"
FACT = "access code of"
KEPT, FILTERED = "#b3541e", "#c9c9c9"


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, x)


def step_sizes(text: str) -> tuple[np.ndarray, np.ndarray, list[str], int]:
    """Raw step sizes (tokens, heads) of the layer that filters most, its thresholds, the tokens, and the layer."""
    model = load("demo")
    ids = np.asarray(model.tokenizer.encode(text), np.uint32)
    plan = model.plan(len(ids))
    assert plan is not None
    hidden = model.loaded.model.embed(mx.array(ids[None].astype(np.int32)))
    state = model.loaded.model.initial_state()
    found = []
    for index in range(model.loaded.model.config.n_layer):
        thresholds = plan.thresholds(index)
        raw, _ = model.loaded.model.raw_step(index, hidden, state.layers[index])
        found.append((np.array(raw)[0], thresholds))
        limits = None if thresholds is None else mx.array(thresholds)
        hidden, _ = model.loaded.model.layer(index, hidden, state.layers[index], limits)
    shares = [0.0 if t is None else float(np.mean(raw[:, np.isfinite(t)] <= t[np.isfinite(t)])) for raw, t in found]
    layer = int(np.argmax(shares))
    raw, thresholds = found[layer]
    return raw, np.asarray(thresholds), [model.tokenizer.decode([int(i)]) for i in ids], layer


def remembering_head(raw: np.ndarray, thresholds: np.ndarray, around: slice) -> int:
    """The filtered head whose kept tokens lie most in the sentence `around`: the one that remembers it."""
    heads = [head for head in range(raw.shape[1]) if np.isfinite(thresholds[head])]
    return max(heads, key=lambda h: (raw[around, h] > thresholds[h]).mean() - (raw[:, h] > thresholds[h]).mean())


def fact(tokens: list[str]) -> slice:
    """The tokens around the first fact of the sample document."""
    place = next(i for i in range(len(tokens)) if "".join(tokens[i : i + 6]).strip().startswith(FACT))
    return slice(place - 26, place + 22)


def units() -> None:
    calibration = load("demo").calibration
    assert calibration is not None
    figure, axis = plt.subplots(figsize=(7, 2.6), constrained_layout=True)
    nats = -np.log(1e-5)  # demo's theta
    for index, layer in enumerate(calibration.layers):
        forgotten = -log_decay(layer.budgets, layer.rates, layer.step_mean, "step_mean", "avg")
        colours = np.where(forgotten < nats, KEPT, FILTERED)
        axis.scatter(np.maximum(forgotten, 1e-3), np.full(len(forgotten), index), c=colours, s=28)
    axis.axvline(nats, color="black", linewidth=0.8, linestyle="--")
    axis.text(nats * 1.1, -0.45, "ln 1/θ", fontsize=9, va="center")
    axis.set_xscale("log")
    axis.set_yticks(range(len(calibration.layers)), [f"layer {i}" for i in range(len(calibration.layers))])
    axis.set_ylim(len(calibration.layers) - 0.4, -0.75)
    axis.set_xlabel("|A| ΣΔ over a training window: left remembers (global), right forgets (local)")
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(FIGURES / "units.png", dpi=130)


def budget(raw: np.ndarray, thresholds: np.ndarray, tokens: list[str], layer: int) -> None:
    head = remembering_head(raw, thresholds, fact(tokens))
    delta = softplus(raw[:, head])
    kept = np.where(raw[:, head] > thresholds[head], delta, 0)
    calibration = load("demo").calibration
    assert calibration is not None
    window = float(calibration.layers[layer].budgets[:, head].mean())
    figure, axis = plt.subplots(figsize=(7, 3), constrained_layout=True)
    axis.plot(np.cumsum(delta), color="#888888", linestyle="--", label=f"all tokens: {delta.sum():.1f}")
    axis.plot(np.cumsum(kept), color=KEPT, label=f"kept tokens: {kept.sum():.1f}")
    axis.axhline(window, color="black", linewidth=0.8, linestyle=":", label=f"a training window: {window:.1f}")
    axis.set_xlabel("token")
    axis.set_ylabel("ΣΔ so far")
    axis.set_title(f"demo, layer {layer}, head {head}", fontsize=10)
    axis.margins(x=0.005)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(FIGURES / "budget.png", dpi=130)


def method(raw: np.ndarray, thresholds: np.ndarray, tokens: list[str], layer: int) -> None:
    around = fact(tokens)
    head = remembering_head(raw, thresholds, around)
    delta, line = softplus(raw[:, head]), softplus(thresholds[head])
    kept = delta > line
    figure, (whole, near) = plt.subplots(2, 1, figsize=(9, 4.6), height_ratios=(1, 1.2), constrained_layout=True)
    for axis, part in ((whole, slice(0, len(delta))), (near, around)):
        positions = np.arange(part.start, part.stop)
        shown = delta[part]
        colours = np.where(kept[part], KEPT, FILTERED)
        axis.vlines(positions, 0, shown, colors=colours, linewidth=0.6 if axis is whole else 5)
        axis.axhline(line, color="black", linewidth=0.8, linestyle="--")
        axis.set_ylabel("Δ")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.005)
    share = kept.mean()
    whole.set_title(
        f"demo, layer {layer}, head {head}: {len(delta):,} tokens of the sample document, {share:.1%} kept", fontsize=10
    )
    whole.set_xlabel("token")
    whole.text(len(delta), line, " threshold", va="center", fontsize=8)
    near.set_xticks(
        np.arange(around.start, around.stop),
        [token.replace("\n", "⏎") for token in tokens[around]],
        rotation=90,
        fontsize=7,
    )
    near.set_title(
        "one of its sentences: kept tokens are written to the memory, the others leave it as it is", fontsize=10
    )
    figure.savefig(FIGURES / "method.png", dpi=130)


def far() -> None:
    if not report("niah")["rows"]:
        return
    figure, axis = plt.subplots(figsize=(7, 3.4), constrained_layout=True)
    names = {
        "off": ("filter off", "#888888", "o--"),
        "last": ("last 512 tokens only", "#6a8caf", "s:"),
        "longmamba": ("LongMamba", KEPT, "o-"),
        "document": ("LongMamba, filter document", "#3d7a4e", "^-."),
        "surest": ("surest part", "#7a4e9c", "D:"),
    }
    furthest = 0
    for name, (label, colour, style) in names.items():
        points: dict[int, dict[str, Any]] = {}
        for task in ("niah", "far", "farther", "millions", "surest", "surest-far"):
            points |= {row["length"]: row for row in report(task)["rows"] if row["filter"] == name}
        if not points:
            continue
        lengths = sorted(points)
        furthest = max(furthest, lengths[-1])
        axis.errorbar(lengths, [points[n]["accuracy"] for n in lengths], [points[n]["stderr"] or 0 for n in lengths],
                      fmt=style, color=colour, label=label, markersize=4, capsize=2)  # fmt: skip
    axis.set_xscale("log", base=2)
    ticks = [length for length in (512 * 4**power for power in range(9)) if length <= furthest]
    axis.set_xticks(ticks, [f"{n:,}\n{n // 512} × L" for n in ticks], fontsize=8)
    axis.set_xlabel("tokens in the document (L = 512, the training length)")
    axis.set_ylabel("answers right")
    axis.set_ylim(-0.03, 1.05)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(FIGURES / "far.png", dpi=130)


def report(task: str) -> dict[str, Any]:
    """A report on `demo`; without rows where it was not measured."""
    path = ROOT / "docs" / "results" / f"{task}-demo.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": []}
    return found


def policies() -> None:
    """Every policy and baseline on the same documents, at two lengths."""
    rows = [row for row in report("baselines")["rows"] if ":" not in row["filter"] and "," not in row["filter"]]
    lengths = sorted({row["length"] for row in rows})
    if not rows:
        return
    names = list(dict.fromkeys(row["filter"] for row in rows))
    figure, axis = plt.subplots(figsize=(7, 3.4), constrained_layout=True)
    for offset, (length, colour) in enumerate(zip(lengths, (FILTERED, KEPT), strict=True)):
        found = {row["filter"]: row for row in rows if row["length"] == length}
        places = np.arange(len(names)) + 0.4 * offset
        axis.barh(places, [found[name]["accuracy"] for name in names], 0.38, color=colour,
                  xerr=[found[name]["stderr"] for name in names], label=f"{length:,} tokens ({length // 512} × L)",
                  error_kw={"linewidth": 0.8})  # fmt: skip
    labels = {
        "off": "filter off",
        "last": "last 512 tokens only",
        "paper": "paper (default)",
        "chunks": "surest part (OPRM)",
        "surest": "surest part (OPRM)",
    }
    axis.set_yticks(np.arange(len(names)) + 0.2, [labels.get(name, name) for name in names], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("answers right (development split)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.savefig(FIGURES / "policies.png", dpi=130)


def kept() -> None:
    """How many tokens of a long document the heads that remember have kept, by filter."""
    found = report("kept")
    rows = [row for row in found["rows"] if row["tokens"] == found["tokens"]]
    if not rows:
        return
    figure, axis = plt.subplots(figsize=(7, 2.8), constrained_layout=True)
    heads = list(dict.fromkeys((row["layer"], row["head"]) for row in rows))
    for offset, (name, colour) in enumerate((("paper", KEPT), ("document", "#3d7a4e"))):
        counts = {(row["layer"], row["head"]): row["kept"] for row in rows if row["filter"] == name}
        axis.barh(
            np.arange(len(heads)) + 0.4 * offset, [counts[head] for head in heads], 0.38, color=colour, label=name
        )
    axis.set_xscale("log")
    axis.set_xlim(left=1)
    axis.set_yticks(np.arange(len(heads)) + 0.2, [f"layer {layer}, head {head}" for layer, head in heads], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"tokens kept of {found['tokens']:,}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    figure.savefig(FIGURES / "kept.png", dpi=130)


if __name__ == "__main__":
    FIGURES.mkdir(parents=True, exist_ok=True)
    sample = step_sizes(Document("sample", sample_document().read_text(encoding="utf-8")).text)
    method(*sample)
    budget(*sample)
    units()
    far()
    policies()
    kept()
