"""The engines to compare: this package and its peers, each behind the same two calls.

Peers are optional. `missing` says why one cannot run here; the benchmark then continues without it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.uint32]
Logits = NDArray[np.float32]
CHUNK = 512


class Engine(Protocol):
    """A loaded model. `prefill` starts a new text; `step` decodes the next token."""

    def prefill(self, ids: Ids) -> Logits:
        """Read ids (S,) from an empty state -> logits (vocab,) after the last one."""
        ...

    def step(self, token: int) -> Logits:
        """One more token -> logits (vocab,)."""
        ...


class Ours:
    """longmamba-mlx: chunks of 512 tokens, nothing filtered."""

    def __init__(self, folder: Path, threads: int) -> None:
        from longmamba_mlx.models.loading import load_model

        self._model = load_model(folder).model

    def prefill(self, ids: Ids) -> Logits:
        from longmamba_mlx.inference.prefill import prefill

        reading = prefill(self._model, ids, None, chunk=CHUNK, logits="last")
        self._state = reading.state
        return _known(reading.logits)

    def step(self, token: int) -> Logits:
        import mlx.core as mx

        hidden, self._state = self._model(mx.array([[token]]), self._state)
        logits = self._model.head(hidden)[0, 0]
        self._state.evaluate()
        return np.array(logits, dtype=np.float32)


class MlxLm:
    """mlx-lm's own model and cache, chunks of 512 tokens."""

    def __init__(self, folder: Path, threads: int) -> None:
        from mlx_lm.utils import load_model

        self._model = load_model(folder)[0]

    def prefill(self, ids: Ids) -> Logits:
        import mlx.core as mx
        from mlx_lm.models.cache import make_prompt_cache

        self._cache = make_prompt_cache(self._model)
        for start in range(0, len(ids), CHUNK):
            logits = self._model(mx.array(ids[None, start : start + CHUNK]), cache=self._cache)[0, -1]
            mx.eval(logits, [layer.state for layer in self._cache])
        return np.array(logits.astype(mx.float32))

    def step(self, token: int) -> Logits:
        import mlx.core as mx

        return np.array(self._model(mx.array([[token]]), cache=self._cache)[0, -1].astype(mx.float32))


class Transformers:
    """transformers on torch's CPU build, the whole prompt in one call, as it is used."""

    def __init__(self, folder: Path, threads: int) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        self._torch: Any = torch
        classes: Any = AutoModelForCausalLM  # without annotations of its own
        self._model = classes.from_pretrained(folder, dtype=torch.float32).eval()

    def prefill(self, ids: Ids) -> Logits:
        return self._run(ids.astype(np.int64), {})

    def step(self, token: int) -> Logits:
        return self._run(np.array([token]), {"cache_params": self._cache})

    def _run(self, ids: NDArray[np.int64], more: dict[str, object]) -> Logits:
        with self._torch.inference_mode():
            given = self._torch.from_numpy(ids)[None]
            out = self._model(given, use_cache=True, logits_to_keep=1, **more)
        self._cache = out.cache_params
        logits: Logits = out.logits[0, -1].numpy()
        return logits


class LlamaCpp:
    """llama.cpp through llama-cpp-python's low-level calls, float32 weights, batches of 512 tokens."""

    def __init__(self, folder: Path, threads: int) -> None:
        import llama_cpp

        from longmamba_mlx.bench.gguf_file import write_gguf

        self._lib: Any = llama_cpp
        path = write_gguf(folder)
        silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(silent, None)
        self._silent = silent  # the library keeps only a pointer
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            raise RuntimeError("llama.cpp does not load this checkpoint")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = 1 << 20, CHUNK, CHUNK
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def prefill(self, ids: Ids) -> Logits:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        for start in range(0, len(ids), CHUNK):
            self._decode(ids[start : start + CHUNK])
        return self._logits()

    def step(self, token: int) -> Logits:
        self._decode(np.array([token]))
        return self._logits()

    def _decode(self, ids: NDArray[Any]) -> None:
        tokens = (self._lib.llama_token * len(ids))(*ids.tolist())
        batch = self._lib.llama_batch_get_one(tokens, len(ids))
        if self._lib.llama_decode(self._context, batch):
            raise RuntimeError("llama_decode failed")

    def _logits(self) -> Logits:
        pointer = self._lib.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary,)).astype(np.float32)


def _known(logits: Logits | None) -> Logits:
    if logits is None:
        raise RuntimeError("no logits")
    return logits


ENGINES: dict[str, Callable[[Path, int], Engine]] = {
    "longmamba-mlx": Ours,
    "mlx-lm": MlxLm,
    "transformers": Transformers,
    "llama.cpp": LlamaCpp,
}
_NEEDS = {"transformers": ("torch", "transformers"), "llama.cpp": ("llama_cpp", "gguf")}
_PIP = {"llama_cpp": "llama-cpp-python"}


def missing(engine: str) -> str:
    """Why an engine cannot run here; empty when it can."""
    absent = [name for name in _NEEDS.get(engine, ()) if find_spec(name) is None]
    return f"not installed: pip install {' '.join(_PIP.get(name, name) for name in absent)}" if absent else ""
