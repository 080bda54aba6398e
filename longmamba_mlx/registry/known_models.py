"""Public checkpoints worth knowing, for `longmamba-mlx models`.

What the publishers' own pages, or pages that quote them, say; None where nobody was found to say it. Sizes are
computed: two bytes (four, for float32 files) a parameter. The real size is asked of the Hub before a download.
"""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.system import total_bytes

_APACHE = "Apache 2.0"
_FALCON = "TII Falcon-LLM 2.0"
# What quantising to 4 bit leaves of a 16-bit file, with x_proj, dt_proj, embeddings and head at 8 bit (computed
# for Falcon3-Mamba-7B: 4.5 of 14.6 GB), and where Mamba-2's in_proj, most of the model, is at 8 bit too.
_SHARE_AT_4_BIT = {"mamba": 0.32, "falcon_mamba": 0.32, "jamba": 0.32, "mamba2": 0.46}
_SHARE_AT_4_BIT_HYBRID = 0.37
_USABLE = 0.7  # of the memory: the rest is the system's, one chunk's and the state's


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on the Hub. `parameters` in billions; `context`: the training length, or what the publisher
    validated, in tokens; `chat`: whether it was tuned to follow instructions."""

    repository: str
    family: str
    parameters: float
    context: int | None
    licence: str | None
    chat: bool
    bytes_per_weight: int = 2

    @property
    def download_bytes(self) -> int:
        """Computed size of the weight files."""
        return int(self.parameters * 1e9 * self.bytes_per_weight)

    @property
    def quantised_bytes(self) -> int:
        """Computed size after `-q` with its defaults."""
        share = _SHARE_AT_4_BIT.get(self.family, _SHARE_AT_4_BIT_HYBRID)
        return int(self.parameters * 2e9 * share)

    def fit(self, memory: int | None = None) -> str:
        """Whether the model fits this machine: "yes", "with -q" or "no". memory: bytes, this machine's by default."""
        usable = usable_bytes(memory)
        if self.download_bytes <= usable:
            return "yes"
        return "with -q" if self.quantised_bytes <= usable else "no"


def usable_bytes(memory: int | None = None) -> int:
    """What a model may take of a machine with so many bytes of memory (this one by default)."""
    return int(_USABLE * (total_bytes() if memory is None else memory))


def _paper_models() -> tuple[Checkpoint, ...]:
    """The base models that the LongMamba paper measures, float32 on the Hub."""
    sizes = {"130m": 0.13, "370m": 0.37, "790m": 0.79, "1.4b": 1.4, "2.8b": 2.8}
    first = tuple(
        Checkpoint(f"state-spaces/mamba-{name}-hf", "mamba", size, 2048, _APACHE, False, 4)
        for name, size in sizes.items()
    )
    sizes = {"130m": 0.13, "370m": 0.37, "780m": 0.78, "1.3b": 1.3, "2.7b": 2.7}
    second = tuple(
        Checkpoint(f"state-spaces/mamba2-{name}", "mamba2", size, 2048, None, False) for name, size in sizes.items()
    )
    return first + second


CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint("ibm-granite/granite-4.0-h-350m", "granitemoehybrid", 0.35, 131072, _APACHE, True),
    Checkpoint("ibm-granite/granite-4.0-h-1b", "granitemoehybrid", 1.0, 131072, _APACHE, True),
    Checkpoint("ibm-granite/granite-4.0-h-micro", "granitemoehybrid", 3.0, 131072, _APACHE, True),
    Checkpoint("ibm-granite/granite-4.0-h-tiny", "granitemoehybrid", 7.0, 131072, _APACHE, True),
    Checkpoint("ibm-granite/granite-4.0-h-small", "granitemoehybrid", 32.0, 131072, _APACHE, True),
    Checkpoint("tiiuae/Falcon3-Mamba-7B-Instruct", "falcon_mamba", 7.3, 32768, _FALCON, True),
    Checkpoint("tiiuae/Falcon-H1-0.5B-Instruct", "falcon_h1", 0.5, 16384, None, True),
    Checkpoint("tiiuae/Falcon-H1-1.5B-Instruct", "falcon_h1", 1.5, 131072, None, True),
    Checkpoint("tiiuae/Falcon-H1-3B-Instruct", "falcon_h1", 3.0, 131072, None, True),
    Checkpoint("tiiuae/Falcon-H1-7B-Instruct", "falcon_h1", 7.0, 262144, None, True),
    Checkpoint("tiiuae/Falcon-H1-34B-Instruct", "falcon_h1", 34.0, 262144, None, True),
    Checkpoint("ai21labs/AI21-Jamba-Reasoning-3B", "jamba", 3.0, 262144, _APACHE, True),
    Checkpoint("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "nemotron_h", 9.0, 131072, "NVIDIA Open Model", True),
    Checkpoint("Zyphra/Zamba2-1.2B-Instruct", "zamba2", 1.2, 4096, None, True),
    Checkpoint("Zyphra/Zamba2-2.7B-Instruct", "zamba2", 2.7, 4096, None, True),
    Checkpoint("Zyphra/Zamba2-7B-Instruct", "zamba2", 7.4, 4096, None, True),
    Checkpoint("mistralai/Mamba-Codestral-7B-v0.1", "mamba2", 7.3, None, None, True),
    *_paper_models(),
)

# One for each size of memory, by what it needs: instruct models with an open licence and a long context.
_RECOMMENDED = ("ibm-granite/granite-4.0-h-350m", "ibm-granite/granite-4.0-h-1b", "ibm-granite/granite-4.0-h-micro",
                "ibm-granite/granite-4.0-h-tiny")  # fmt: skip
_COMFORTABLE = 0.5  # of the memory: the machine is used for other things meanwhile


def recommended(memory: int | None = None) -> Checkpoint:
    """The one model to try first on a machine with so many bytes of memory (this one by default)."""
    room = _COMFORTABLE * (total_bytes() if memory is None else memory)
    known = {checkpoint.repository: checkpoint for checkpoint in CHECKPOINTS}
    smallest, *larger = (known[name] for name in _RECOMMENDED)
    fitting = [model for model in larger if model.download_bytes <= room]
    return fitting[-1] if fitting else smallest
