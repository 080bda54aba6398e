"""Model what the scans cost on Apple's GPUs (nothing is measured); print the table of docs/appendix/kernels.md.

A core issues 4 instructions for 32 lanes a cycle. Matrix products reach 70 % of that (on M5 four times as much, on its
neural accelerators); memory gives 80 % of its public bandwidth, the cache twice as much. Model sizes as published.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEDULERS = 4  # of a core, each for 32 lanes
MATRIX_SHARE = 0.7
MEMORY_SHARE = 0.8

# Instructions of a simdgroup for a token, counted in NVIDIA's machine code by tests/emulator/instructions.py (sm_90).
SEQUENTIAL_MAMBA2 = 119
SEQUENTIAL_MAMBA1 = 360
# The same for the chunked kernel: of all simdgroups for a head and token, by rows and states, with all tokens kept and
# with half of them. A product of 8 x 8 matrices counts as PRODUCT_SLOTS.
CHUNKED = {(64, 128): (1054, 725), (64, 64): (675, 451), (128, 256): (3862, 2665)}
# What a simdgroup issues is rarely ideal: barriers, loads that are waited for. Both ends of a range are shown.
ISSUE_RATES = (1.0, 0.5)

PRODUCT_SLOTS = 16  # 8 x 8 x 8 multiplications over 32 lanes
CHUNK = 64


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    cores: int
    ghz: float
    gigabytes: float  # a second
    matrix_factor: int = 1

    @property
    def slots(self) -> float:
        """Instructions for 32 lanes that all cores together issue in a microsecond."""
        return self.cores * SCHEDULERS * self.ghz * 1e3

    @property
    def flops(self) -> float:
        """Floating-point operations of matrix products in a microsecond."""
        return self.slots * 32 * 2 * MATRIX_SHARE


@dataclass(frozen=True, slots=True)
class Model:
    name: str
    layers: int  # with a scan
    heads: int
    rows: int
    states: int
    active: float  # thousand million parameters that a token passes
    mamba1: bool = False


GPUS = (
    Gpu("M1, 8 cores", 8, 1.278, 68),
    Gpu("M2 Max, 38 cores", 38, 1.398, 400),
    Gpu("M5, 10 cores", 10, 1.62, 153, matrix_factor=4),
)
MODELS = (
    Model("mamba-1.4b", 48, 1, 4096, 16, 1.4, mamba1=True),
    Model("mamba2-2.7b", 64, 80, 64, 128, 2.7),
    Model("Zamba2-7B", 81, 112, 64, 64, 7.2),
    Model("Falcon-H1-7B", 44, 24, 128, 256, 7.3),
    Model("Granite-4.0-H-Small", 36, 128, 64, 128, 9.0),
)
# Measured by others: mlx-lm's ssm_attn, 128 heads of 64 rows and 128 states, M3 Ultra (mlx-lm pull request 1579).
FIELD_GPU = Gpu("M3 Ultra, 80 cores", 80, 1.38, 819)
FIELD_MODEL = Model("one layer of Nemotron-H", 1, 128, 64, 128, 0.0)
FIELD_MICROSECONDS = 46.8e3 / 8192


def matrices(model: Model, gpu: Gpu) -> float:
    """Microseconds a token for all matrix products with weights."""
    return 2e9 * model.active / (gpu.flops * gpu.matrix_factor)


def sequential(model: Model, gpu: Gpu, rate: float) -> float:
    """Microseconds a token: one simdgroup holds 32 threads of up to 16 states each."""
    simdgroups = model.heads * model.rows * model.states / 16 / 32
    instructions = SEQUENTIAL_MAMBA1 if model.mamba1 else SEQUENTIAL_MAMBA2
    busy = min(gpu.slots, simdgroups * gpu.ghz * 1e3)  # a simdgroup issues one instruction a cycle at most
    return model.layers * simdgroups * instructions / busy / rate


def products(model: Model, kept: float) -> float:
    """8 x 8 products of one head in one chunk, a share of its tokens kept, evenly spread."""
    blocks, rows, states = CHUNK // 8, model.rows / 8, model.states / 8
    kept_blocks = round(kept * blocks)
    read = blocks * rows * states
    # The k-th block of kept tokens is seen by the tokens from its place in the chunk on.
    seen = sum(blocks - int(k / kept) for k in range(kept_blocks)) if kept_blocks else 0
    parts = 2 if model.rows * model.states > 64 * 256 else 1  # threadgroups that share a head each make its scores
    return read + seen * (parts * states + rows) + kept_blocks * rows * states


def chunked(model: Model, gpu: Gpu, rate: float, *, half_kept: bool = False) -> float:
    """Microseconds a token on the matrix units."""
    slots = CHUNKED[model.rows, model.states][half_kept]
    return model.layers * model.heads * slots / gpu.slots / rate


def tensor_operations(model: Model, gpu: Gpu) -> float:
    """Microseconds a token of a chunked kernel that is not written: its products at half the rate of M5's neural
    accelerators, everything else as now."""
    multiplied = products(model, 1.0) * PRODUCT_SLOTS / CHUNK
    slots = CHUNKED[model.rows, model.states][0] - multiplied + multiplied / (gpu.matrix_factor / 2)
    return model.layers * model.heads * slots / gpu.slots


def ssm_attn(model: Model, gpu: Gpu) -> float:
    """Microseconds a token of mlx-lm's: 16 passes over (heads, 256, 256) in memory for 256 tokens, every state from the
    cache for every token, products in float32."""
    passes = 16 * model.heads * 256 * 4
    states = model.heads * model.rows * model.states * 4
    flops = model.heads * (2 * 256 * model.rows + 4 * model.rows * model.states)
    memory = gpu.gigabytes * 1e3
    return model.layers * (passes / (memory * MEMORY_SHARE) + states / (2 * memory) + flops / gpu.flops)


def _share(scan: float, rest: float) -> str:
    return f"{100 * scan / (scan + rest):.0f} %"


def _range(times: list[float], rest: float) -> str:
    low, high = times
    return f"{low:.0f}–{high:.0f} ({_share(low, rest)}–{_share(high, rest)})"


def table() -> str:
    """The Markdown table: microseconds a token through all layers, batch 1, and the scan's share of a prefill."""
    lines = [
        "| model | GPU | matrices | sequential | chunked | chunked, half kept | mlx-lm's ssm_attn |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in MODELS:
        for gpu in GPUS:
            rest = matrices(model, gpu)
            cells = [_range([sequential(model, gpu, rate) for rate in ISSUE_RATES], rest)]
            if model.mamba1:
                cells += ["", "", ""]
            else:
                for half in (False, True):
                    cells.append(_range([chunked(model, gpu, rate, half_kept=half) for rate in ISSUE_RATES], rest))
                theirs = ssm_attn(model, gpu)
                cells.append(f"{theirs:.0f} ({_share(theirs, rest)})")
            lines.append(f"| {model.name} | {gpu.name} | {rest:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    print(table())
    print(
        f"\nmlx-lm's ssm_attn on an {FIELD_GPU.name}: {ssm_attn(FIELD_MODEL, FIELD_GPU):.1f} modelled, "
        f"{FIELD_MICROSECONDS:.1f} microseconds a token and layer measured"
    )


if __name__ == "__main__":
    main()
