"""A model with what its text needs: tokenizer, prompt form, filter plan, calibration, and the keys of its states."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from longmamba_mlx.documents import READER_VERSION
from longmamba_mlx.documents.streamed_text import Text, length_of, pieces_of
from longmamba_mlx.errors import DocumentError, ModelError
from longmamba_mlx.filtering import (
    Calibration,
    FilterPlan,
    build_plan,
    calibration_windows,
    collect,
    collect_steps,
    constants_for,
    policy_for,
)
from longmamba_mlx.filtering.plan import require_layers
from longmamba_mlx.ground.steps import Steps, Stop, run_to_end
from longmamba_mlx.inference.pieces import Ids
from longmamba_mlx.inference.progress import Clock, Progress
from longmamba_mlx.models import LanguageModel, memory
from longmamba_mlx.models.loading import LoadedModel
from longmamba_mlx.models.mixer import float_type
from longmamba_mlx.models.weight_files import CALIBRATION
from longmamba_mlx.ops import kernel
from longmamba_mlx.paths import calibration_folder, private_folder
from longmamba_mlx.states.state_file import Info, StateKey
from longmamba_mlx.tokenization.chat_template import template_form
from longmamba_mlx.tokenization.count import CountedText, count
from longmamba_mlx.tokenization.prompt_format import PromptForm
from longmamba_mlx.tokenization.tokenizer import Tokenizer


class TextModel:
    """A loaded model with its tokenizer, prompt form, filter settings and calibration. Use it from one thread."""

    def __init__(
        self, loaded: LoadedModel, tokenizer: Tokenizer, filter: str = "longmamba", form: PromptForm | None = None
    ) -> None:
        self.loaded = loaded
        self.name = loaded.name
        self.tokenizer = tokenizer
        self.form = form or PromptForm.from_settings(loaded.settings, template_form(loaded.folder))
        self.policy = policy_for(loaded.config, filter, loaded.settings)
        self.policy.check_model(hybrid=loaded.config.hybrid is not None)
        self.calibration = self._stored_calibration()
        if tokenizer.vocabulary > loaded.config.vocab_size:
            raise ModelError(
                f"The tokenizer of {self.name} has {tokenizer.vocabulary} tokens, its model only "
                f"{loaded.config.vocab_size}.",
                hint="Convert the checkpoint again with its own tokenizer.json.",
            )

    @property
    def network(self) -> LanguageModel:
        """The layers: token ids and states, never text."""
        return self.loaded.model

    @property
    def parameters(self) -> int:
        """The number of values in the weights."""
        return self.loaded.parameters

    @property
    def attention_window(self) -> int | None:
        """Number of latest tokens that a hybrid's attention sees; None: all, or no attention."""
        hybrid = self.loaded.config.hybrid
        return None if hybrid is None or hybrid.attention is None else hybrid.attention.window

    @property
    def filter(self) -> str:
        """The filter's name as a plan uses it: `longmamba` is replaced by the policy it stands for."""
        return self.policy.name

    @property
    def training_length(self) -> int:
        """Tokens in a calibration window: no filter is needed up to this length."""
        return constants_for(self.loaded.config, self.loaded.settings).training_length

    def with_filter(self, filter: str) -> Self:
        """The same weights with another filter."""
        return type(self)(self.loaded, self.tokenizer, filter, self.form)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer: the model's own, and the special token with which a chat template ends a turn."""
        after = self.tokenizer.encode(self.form.follow_up)[:1]
        return frozenset(self.loaded.config.eos_token_ids) | {
            int(token) for token in after if self.tokenizer.special(int(token))
        }

    @cached_property
    def opening_ids(self) -> NDArray[np.uint32]:
        """Ids (n,) that the prompt form puts before every document."""
        return self.tokenizer.encode(self.form.opening)

    def tokenise(self, document: Text, *, end: int | None = None, should_stop: Stop | None = None) -> CountedText:
        """All ids of a document, or of its first `end` characters, after `opening_ids`.

        Raises StoppedError, DiskError.
        """
        return count(self.tokenizer, self.opening_ids, pieces_of(document, end), should_stop=should_stop)

    def count(self, document: Text, *, should_stop: Stop | None = None) -> CountedText:
        """`tokenise` a whole document. Raises DocumentError too, for a text without a single token."""
        counted = self.tokenise(document, should_stop=should_stop)
        if len(counted.ids) == len(self.opening_ids):
            raise DocumentError(f"{self.name} has no token for {document.title!r}.", hint="Give another document.")
        return counted

    def can_plan(self, total: int) -> bool:
        """Whether `plan` needs no ids: nothing is filtered, or the model is calibrated."""
        return self.filter == "off" or self.calibration is not None or total <= self.training_length

    def plan(self, total: int, ids: Ids | None = None) -> FilterPlan | None:
        """The filter plan for a document of `total` tokens; None where nothing is filtered.

        A model without a calibration is calibrated on windows of `ids` first, and the calibration is stored.
        """
        if self.filter == "off" or total <= self.training_length:
            return None
        if self.calibration is None:
            run_to_end(self.calibration_steps(np.zeros(0, np.uint32) if ids is None else ids))
        if self.calibration is None:
            raise RuntimeError("a measured model has its calibration")
        plan = build_plan(self.calibration, self.policy, total)
        return None if plan.is_off else plan

    def require_memory(self, tokens: int, chunk: int, *, beside: int = 0) -> None:
        """Raise ModelError where reading `tokens` tokens, `chunk` at a time, and `beside` bytes for what becomes of
        them would take more memory than may be used."""
        need = memory.need(self.network, tokens, chunk)
        grows = bool(self.network.initial_state().nbytes_per_token)  # with the text: attention without a window
        out = "Bound its attention: --attention-window 4096" if grows else "Read less at once: --chunk 128"
        memory.require(need.total + beside, f"Reading {tokens:,} tokens with {self.name}", out)

    def measure(
        self,
        ids: Ids,
        *,
        windows: int = 16,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Calibration:
        """A calibration from evenly spread windows of ids (N,)."""
        chosen = self._windows(ids, windows)
        return collect(self.network, chosen, on_progress=on_progress, **self._measured_as)

    def calibration_steps(self, ids: Ids, *, windows: int = 16) -> Generator[Progress, None, None]:
        """Calibrate on evenly spread windows of ids (N,), and store the result: yields Progress in tokens."""
        chosen = self._windows(ids, windows)
        steps = Steps(collect_steps(self.network, chosen, **self._measured_as))
        clock = Clock(chosen.size)
        for done, total in steps:
            yield clock.at(done * chosen.size // total)
        private_folder(calibration_folder())
        steps.result.save(self.remembered_calibration)
        self.calibration = steps.result

    def _windows(self, ids: Ids, count: int) -> NDArray[np.uint32]:
        return calibration_windows(cast("NDArray[np.uint32]", ids), self.training_length, count)  # slices it

    @property
    def _measured_as(self) -> dict[str, Any]:
        clamp = constants_for(self.loaded.config, self.loaded.settings).clamp
        return {
            "fingerprint": self.loaded.fingerprint,
            "quantisation": self.loaded.quantisation,
            "clamps": (clamp,),
        }

    @property
    def remembered_calibration(self) -> Path:
        name = f"{self.loaded.fingerprint[:24]}-{self.loaded.quantisation}.safetensors"
        return calibration_folder() / name

    def _stored_calibration(self) -> Calibration | None:
        for path in (self.loaded.folder / CALIBRATION, self.remembered_calibration):
            if path.exists():
                found = Calibration.load(
                    path, fingerprint=self.loaded.fingerprint, quantisation=self.loaded.quantisation
                )
                network, units = self.network, self.loaded.config.units
                scans = [network.has_scan(index) for index in range(self.loaded.config.n_layer)]
                require_layers(found, len(scans), [units if scan else 0 for scan in scans])
                return found
        return None

    def key(self, digest: str, tokens: int, plan: FilterPlan | None, chunk: int) -> StateKey:
        """Everything that the state of the document with this digest, read with this plan, depends on."""
        window = self.attention_window
        return StateKey(
            document=digest,
            reader=READER_VERSION,
            tokens=tokens,
            config="" if window is None else f"attention_window={window}",  # all else is part of the fingerprint
            filter="off" if plan is None else plan.digest(),
            calibration="" if plan is None or self.calibration is None else self.calibration.text_digest,
            plan_length=tokens,
            chunk=chunk,
            kernel=kernel(),
            **self.identity(),  # type: ignore[arg-type]
        )

    def would_store(self, key: StateKey, plan: FilterPlan | None, chunk: int) -> bool:
        """Whether this model would store its reading with `plan` under `key`, if its reader of files is left aside: the
        text is the same, whatever version of the reader it came from."""
        return key == replace(self.key(key.document, key.tokens, plan, chunk), reader=key.reader)

    def identity(self) -> dict[str, str]:
        """The fields of a state's key that identify the model and the prompt before a document."""
        dtype = str(float_type(self.network.embeddings)).removeprefix("mlx.core.")
        opening = self.form.opening
        return {
            "opening": hashlib.sha256(opening.encode()).hexdigest() if opening else "",
            "tokenizer": self.tokenizer.identity,
            "model": self.loaded.fingerprint,
            "quantisation": self.loaded.quantisation,
            "dtype": dtype,
        }

    def describe(self, document: Text | None, plan: FilterPlan | None, seconds: float) -> Info:
        """Return the row of a document, read in `seconds`, in a list of stored states."""
        return {
            "title": "document" if document is None else document.title,
            "source": "" if document is None else document.source,
            "characters": 0 if document is None else length_of(document),
            "model": self.name,
            "filter": "off" if plan is None else self.filter,
            "settings": "" if plan is None else plan.policy.canonical(),
            "seconds": round(seconds, 3),
            "read": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
