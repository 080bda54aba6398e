"""The reference's side of a parity fixture: transformers' own classes in float32, on random weights. Needs torch.

The filter of the reference is written here a second time, from its definition alone: the step size of a filtered
token is exactly zero, after every clamp. It goes in front of the module's own scan, so that everything else is
transformers' code.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import math
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.parity.cases import DECODE, PREFILL, Case

_SCANS = ("mamba_selective_scan", "mamba2_chunk_scan")


class Reference:
    """A transformers model with drawn weights, and what it makes of a drawn text."""

    def __init__(self, case: Case) -> None:
        self.rng = np.random.default_rng(zlib.crc32(case.name.encode()))
        config = AutoConfig.for_model(case.model_type, **copy.deepcopy(case.options))
        torch.manual_seed(0)
        self.model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
        draw_weights(self.model, self.rng, config.tie_word_embeddings)
        self.ids = self.rng.integers(0, config.vocab_size, PREFILL + DECODE)

    def saved(self) -> tuple[str, dict[str, np.ndarray]]:
        """config.json and the tensors exactly as transformers saves them."""
        with tempfile.TemporaryDirectory() as folder:
            self.model.save_pretrained(folder)
            tensors: dict[str, np.ndarray] = {}
            for path in sorted(Path(folder).glob("*.safetensors")):
                tensors |= load_file(path)
            return (Path(folder) / "config.json").read_text(), tensors

    @torch.no_grad()
    def logits(self) -> np.ndarray:
        """(tokens, vocab) of one pass over everything."""
        return self.model(torch.tensor(self.ids)[None], use_cache=False).logits[0].numpy()

    @torch.no_grad()
    def decoded(self) -> np.ndarray:
        """The same, the last tokens decoded one by one after a prefill."""
        ids = torch.tensor(self.ids)[None]
        out = self.model(ids[:, :PREFILL], use_cache=True)
        # The pure Mamba classes call it otherwise.
        cache = next(name for name in ("cache", "cache_params", "past_key_values") if getattr(out, name, None))
        parts = [out.logits[0]]
        for index in range(PREFILL, PREFILL + DECODE):
            carried = {cache: getattr(out, cache)}
            out = self.model(ids[:, index : index + 1], use_cache=True, **carried)
            parts.append(out.logits[0])
        return torch.cat(parts).numpy()

    def filtered(self) -> tuple[np.ndarray, dict[int, np.ndarray], float]:
        """One pass with the filter on in the prefill; the thresholds by layer; the share of step sizes zeroed."""
        with filtering(self.model, self.rng) as chosen:
            logits = self.logits()
        return logits, chosen.thresholds, chosen.zeroed / max(chosen.seen, 1)


def draw_weights(model: torch.nn.Module, rng: np.random.Generator, tied: bool) -> None:
    """Draw every parameter anew, so that an ignored one shows; values that float16 holds exactly."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = drawn(rng, name, tuple(parameter.shape), tied)
            parameter.copy_(torch.tensor(values.astype(np.float16).astype(np.float32)))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):  # Nemotron-H's, a weight that is no parameter
                buffer.copy_(torch.tensor((0.2 * rng.standard_normal(buffer.shape)).astype(np.float16)))


def drawn(rng: np.random.Generator, name: str, shape: tuple[int, ...], tied: bool) -> np.ndarray:
    """A parameter by its name, of a size at which everything in the model matters."""
    noise = rng.standard_normal(shape)
    if name.endswith("A_log"):
        return np.log(rng.uniform(0.3, 9.0, shape))
    if name.endswith(("dt_bias", "dt_proj.bias", "dt_proj_bias")):
        step = np.exp(rng.uniform(math.log(1e-4), math.log(0.3), shape))
        return step + np.log(-np.expm1(-step))
    if ".mimo_" in name:
        return 0.5 * noise
    if name.endswith((".D", "norm.weight", "norm_f.weight")) or ("norm" in name and name.endswith("weight")):
        return 1 + 0.3 * noise
    if name.endswith("bias"):
        return 0.2 * noise
    if "embed" in name:
        return noise / math.sqrt(shape[-1]) if tied else noise
    if "conv1d" in name:
        return 0.5 * noise
    if "adapter" in name:
        return 0.5 * noise / math.sqrt(shape[-1])
    return noise / math.sqrt(shape[-1])


class Filtering:
    """The filter, and the thresholds it chose on the way: no raw step size lies within reach of rounding."""

    def __init__(self, rng: np.random.Generator, unfiltered: int) -> None:
        self.rng = rng
        self.unfiltered = unfiltered
        self.layer = -1
        self.thresholds: dict[int, np.ndarray] = {}
        self.zeroed = 0
        self.seen = 0

    def steps(self, raw: torch.Tensor, limit: tuple[float, float]) -> torch.Tensor:
        """Raw (b, tokens, units) -> step sizes, zero where this layer's threshold is not exceeded."""
        delta = torch.clamp(F.softplus(raw), min=limit[0], max=limit[1])
        if self.layer == self.unfiltered:
            return delta
        threshold = self._choose(raw[0, :PREFILL].numpy())
        before = self.thresholds.get(self.layer, threshold[:0])  # Zamba scans its heads one by one
        self.thresholds[self.layer] = np.concatenate([before, threshold])
        keep = raw > torch.tensor(threshold)
        keep[:, PREFILL:] = True
        self.zeroed += int((~keep).sum())
        self.seen += keep[:, :PREFILL].numel()
        return torch.where(keep, delta, torch.zeros_like(delta))

    def _choose(self, raw: np.ndarray) -> np.ndarray:
        """In the middle of the widest gap between the 40th and the 90th percentile; a quarter of units stay free."""
        ranked = np.sort(raw, axis=0)[int(0.4 * len(raw)) : int(0.9 * len(raw))]
        widest = np.diff(ranked, axis=0).argmax(axis=0)
        units = np.arange(raw.shape[1])
        threshold = ((ranked[widest, units] + ranked[widest + 1, units]) / 2).astype(np.float32)
        threshold[self.rng.random(raw.shape[1]) < 0.25] = -np.inf
        return threshold


@contextlib.contextmanager
def filtering(model: torch.nn.Module, rng: np.random.Generator) -> Iterator[Filtering]:
    """Within, the model's scans run on filtered step sizes; the last layer that has one stays unfiltered."""
    mixers = {int(part.layer_idx): part for part in model.modules() if hasattr(part, "A_log")}
    chosen = Filtering(rng, unfiltered=max(mixers))

    def mark(index: int) -> object:
        def before(*_: object) -> None:
            chosen.layer = index

        return before

    hooks = [mixer.register_forward_pre_hook(mark(index)) for index, mixer in mixers.items()]
    module = importlib.import_module(type(model).__module__)
    originals = {name: getattr(module, name) for name in _SCANS if hasattr(module, name)}
    for name, scan in originals.items():
        setattr(module, name, _filtered_scan(scan, chosen, channels_first=name == "mamba_selective_scan"))
    try:
        yield chosen
    finally:
        for name, scan in originals.items():
            setattr(module, name, scan)
        for hook in hooks:
            hook.remove()


def _filtered_scan(scan: object, chosen: Filtering, channels_first: bool) -> object:
    """`scan`, given step sizes that are already final instead of raw ones."""
    bias_name, softplus_name = ("delta_bias", "delta_softplus") if channels_first else ("dt_bias", "dt_softplus")
    signature = inspect.signature(scan)

    def run(*args: object, **kwargs: object) -> object:
        bound = signature.bind(*args, **kwargs)
        given = bound.arguments
        extra = given.get("kwargs", {})
        assert given.get(softplus_name), "the reference no longer asks its scan for the softplus"
        raw, bias = given["dt"].float(), given[bias_name].float()
        raw = raw.transpose(1, 2) + bias if channels_first else raw + bias
        delta = chosen.steps(raw, given.pop("dt_limit", extra.pop("dt_limit", (0.0, math.inf))))
        given["dt"] = delta.transpose(1, 2) if channels_first else delta
        given[bias_name], given[softplus_name] = None, False
        return scan(*bound.args, **bound.kwargs)

    return run
