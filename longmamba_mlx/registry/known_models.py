"""Known public checkpoints, for `longmamba-mlx models` and the chat's `/model`.

Facts are from the publishers' own pages, or pages that quote them; None where no source was found. Sizes are
computed: two bytes (four, for float32 files) a parameter. The exact size is fetched from the Hub before a download.
"""

from __future__ import annotations

from dataclasses import dataclass

from longmamba_mlx.system import total_bytes

CHAT, REASONING, BASE = "chat", "reasoning", "base"
CAVEATS = {
    CHAT: "",
    REASONING: "reasons at length before it answers: give it more --max-tokens",
    BASE: "completes text, not tuned to answer questions",
}

_APACHE = "Apache 2.0"
_FALCON = "TII Falcon-LLM"
_FALCON_2 = "TII Falcon-LLM 2.0"
_NVIDIA = "NVIDIA Open Model"
# What quantising to 4 bit leaves of a 16-bit file, with x_proj, dt_proj, embeddings and head at 8 bit (computed
# for Falcon3-Mamba-7B: 4.5 of 14.6 GB), and where Mamba-2's in_proj, most of the model, is at 8 bit too.
_SHARE_AT_4_BIT = {"mamba": 0.32, "falcon_mamba": 0.32, "jamba": 0.32, "mamba2": 0.46}
_SHARE_AT_4_BIT_HYBRID = 0.37
_USABLE = 0.7  # of the memory: the rest is for the system, one chunk's activations and the state


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on the Hub. `parameters` in billions; `context`: the training length, or what the publisher
    validated, in tokens; `kind`: CHAT, REASONING or BASE, explained by `CAVEATS`."""

    repository: str
    family: str
    parameters: float
    context: int | None
    licence: str | None
    kind: str
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


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The model for machines of `gigabytes` of memory and more, `quantised` or as it is."""

    gigabytes: int
    checkpoint: Checkpoint
    quantised: bool

    @property
    def repository(self) -> str:
        """Its Hub id."""
        return self.checkpoint.repository

    @property
    def download_bytes(self) -> int:
        """Computed bytes to download."""
        return self.checkpoint.download_bytes

    @property
    def size(self) -> int:
        """Computed bytes of its weights once they are here."""
        return self.checkpoint.quantised_bytes if self.quantised else self.checkpoint.download_bytes

    @property
    def command(self) -> str:
        """What downloads it and makes it the default."""
        return f"longmamba-mlx use {self.checkpoint.repository}{' -q' if self.quantised else ''}"


def usable_bytes(memory: int | None = None) -> int:
    """The bytes a model may use on a machine with this much memory (by default this machine)."""
    return int(_USABLE * (total_bytes() if memory is None else memory))


def recommendations() -> tuple[Recommendation, ...]:
    """One model for each memory size, the smallest first."""
    known = {checkpoint.repository: checkpoint for checkpoint in CHECKPOINTS}
    return tuple(
        Recommendation(gigabytes, known[_GRANITE + name], plain != name) for gigabytes, plain, name in _RECOMMENDED
    )


def recommended(memory: int | None = None, *, quantise: bool = True) -> Recommendation:
    """The recommended model for a machine with `memory` bytes (this one by default); without `quantise` the one that
    fits as it is downloaded."""
    gigabytes = (total_bytes() if memory is None else memory) / (1 << 30)
    # A machine reports a little less than it is sold with.
    number = max((n for n, row in enumerate(_RECOMMENDED) if row[0] <= gigabytes + 1), default=0)
    if quantise:
        return recommendations()[number]
    repository = _GRANITE + _RECOMMENDED[number][1]
    checkpoint = next(known for known in CHECKPOINTS if known.repository == repository)
    return Recommendation(_RECOMMENDED[number][0], checkpoint, False)


def _paper_models() -> tuple[Checkpoint, ...]:
    """The base models that the LongMamba paper measures, float32 on the Hub."""
    sizes = {"130m": 0.13, "370m": 0.37, "790m": 0.79, "1.4b": 1.4, "2.8b": 2.8}
    first = tuple(
        Checkpoint(f"state-spaces/mamba-{name}-hf", "mamba", size, 2048, _APACHE, BASE, 4)
        for name, size in sizes.items()
    )
    sizes = {"130m": 0.13, "370m": 0.37, "780m": 0.78, "1.3b": 1.3, "2.7b": 2.7}
    second = tuple(
        Checkpoint(f"state-spaces/mamba2-{name}", "mamba2", size, 2048, None, BASE) for name, size in sizes.items()
    )
    return first + second


# Granite 4.0 H: hybrids of every size under Apache 2.0, validated by their publisher to 128k tokens. Gigabytes of
# memory, the largest that takes at most half of it as it is, and the one where it may be quantised.
_GRANITE = "ibm-granite/granite-4.0-h-"
_RECOMMENDED = (
    (4, "350m", "350m"),
    (8, "1b", "micro"),
    (16, "micro", "tiny"),
    (32, "tiny", "tiny"),
    (48, "tiny", "small"),
    (128, "small", "small"),
)

CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint("ibm-granite/granite-4.0-h-350m", "granitemoehybrid", 0.35, 131072, _APACHE, CHAT),
    Checkpoint("ibm-granite/granite-4.0-h-1b", "granitemoehybrid", 1.0, 131072, _APACHE, CHAT),
    Checkpoint("ibm-granite/granite-4.0-h-micro", "granitemoehybrid", 3.0, 131072, _APACHE, CHAT),
    Checkpoint("ibm-granite/granite-4.0-h-tiny", "granitemoehybrid", 7.0, 131072, _APACHE, CHAT),
    Checkpoint("ibm-granite/granite-4.0-h-small", "granitemoehybrid", 32.0, 131072, _APACHE, CHAT),
    Checkpoint("ai21labs/AI21-Jamba2-3B", "jamba", 3.0, 262144, _APACHE, CHAT),
    Checkpoint("ai21labs/AI21-Jamba-Reasoning-3B", "jamba", 3.0, 262144, _APACHE, REASONING),
    Checkpoint("nvidia/NVIDIA-Nemotron-3-Nano-4B-BF16", "nemotron_h", 4.0, 262144, _NVIDIA, REASONING),
    Checkpoint("nvidia/NVIDIA-Nemotron-Nano-9B-v2", "nemotron_h", 9.0, 131072, _NVIDIA, REASONING),
    Checkpoint("nvidia/NVIDIA-Nemotron-Nano-12B-v2", "nemotron_h", 12.0, 131072, _NVIDIA, REASONING),
    Checkpoint("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "nemotron_h", 31.6, 1048576, _NVIDIA, REASONING),
    Checkpoint("nvidia/NVIDIA-Nemotron-3.5-Lightning-30B-A3B-BF16", "nemotron_h", 31.6, 1048576, _NVIDIA, REASONING),
    Checkpoint("tiiuae/Falcon3-Mamba-7B-Instruct", "falcon_mamba", 7.3, 32768, _FALCON_2, CHAT),
    Checkpoint("tiiuae/Falcon-H1-Tiny-R-90M", "falcon_h1", 0.09, None, _FALCON, REASONING),
    Checkpoint("tiiuae/Falcon-H1-0.5B-Instruct", "falcon_h1", 0.5, 16384, _FALCON, CHAT),
    Checkpoint("tiiuae/Falcon-H1-Tiny-R-0.6B", "falcon_h1", 0.6, None, _FALCON, REASONING),
    Checkpoint("tiiuae/Falcon-H1-1.5B-Instruct", "falcon_h1", 1.5, 131072, _FALCON, CHAT),
    Checkpoint("tiiuae/Falcon-H1-3B-Instruct", "falcon_h1", 3.0, 131072, _FALCON, CHAT),
    Checkpoint("tiiuae/Falcon-H1-7B-Instruct", "falcon_h1", 7.0, 262144, _FALCON, CHAT),
    Checkpoint("tiiuae/Falcon-H1R-7B", "falcon_h1", 7.0, None, _FALCON, REASONING),
    Checkpoint("tiiuae/Falcon-H1-34B-Instruct", "falcon_h1", 34.0, 262144, _FALCON, CHAT),
    Checkpoint("Zyphra/Zamba2-1.2B-Instruct", "zamba2", 1.2, 4096, None, CHAT),
    Checkpoint("Zyphra/Zamba2-2.7B-Instruct", "zamba2", 2.7, 4096, None, CHAT),
    Checkpoint("Zyphra/Zamba2-7B-Instruct", "zamba2", 7.4, 4096, None, CHAT),
    Checkpoint("mistralai/Mamba-Codestral-7B-v0.1", "mamba2", 7.3, None, None, CHAT),
    Checkpoint("ibm-ai-platform/Bamba-9B-v2", "bamba", 9.8, None, None, BASE),
    Checkpoint("microsoft/Phi-4-mini-flash-reasoning", "phi4flash", 3.8, 65536, "MIT", REASONING),
    Checkpoint("cartesia-ai/Llamba-1B", "llamba", 1.4, None, None, CHAT),
    Checkpoint("cartesia-ai/Llamba-3B", "llamba", 3.7, None, None, CHAT),
    Checkpoint("cartesia-ai/Llamba-8B", "llamba", 8.3, None, None, CHAT),
    Checkpoint("Zyphra/Zamba-7B-v1", "zamba", 7.0, 4096, _APACHE, BASE),
    Checkpoint("state-spaces/mamba2attn-2.7b", "mamba2", 2.7, 2048, None, BASE),
    Checkpoint("pfnet/plamo-2-1b", "plamo2", 1.3, None, _APACHE, BASE),
    Checkpoint("pfnet/plamo-2-8b", "plamo2", 8.0, None, None, BASE),
    Checkpoint("state-spaces/mamba3-mimo-1.5b", "mamba3", 1.5, 2048, None, BASE),
    Checkpoint("state-spaces/mamba-2.8b-slimpj", "mamba", 2.8, 2048, None, BASE),
    *_paper_models(),
)
