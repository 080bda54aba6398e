"""How many instructions a simdgroup spends on a token, in NVIDIA's machine code: a stand-in for Apple's, which nothing
shows here. Needs NVRTC and nvdisasm: `python -m tests.emulator.instructions`."""

from __future__ import annotations

import re
import subprocess
import tempfile

from longmamba_mlx.metal_kernels.chunked_ssd import rows_at_once
from longmamba_mlx.metal_kernels.sequential_scan import layout
from tests.emulator import nvrtc
from tests.emulator.launches import chunked_launch, scan_launch, text_of

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?);")
_LABEL = re.compile(r"^(\.L_x_\d+):")
_JUMP = re.compile(r"BRA.*`\((\.L_x_\d+)\)")
_AHEAD = 4  # tokens in the body of the innermost loop

# A product of 8 x 8 matrices is 16 multiplications and additions of 32 lanes. They stand here on whatever numbers the
# lane holds itself: what is counted is right, what is computed is not.
_FMA = 'asm volatile("fma.rn.f32 %0, %1, %2, %0;" : "+f"(c{0}) : "f"(a.elements[{1}]), "f"(b.elements[{0}]));'
_PRODUCT = """template <typename M>
inline void simdgroup_multiply_accumulate(M& result, const M& a, const M& b, const M& c) {{
  float c0 = c.elements[0], c1 = c.elements[1];
  {}
  result.elements[0] = c0;
  result.elements[1] = c1;
}}
""".format(" ".join(_FMA.replace("{0}", str(i % 2)).replace("{1}", str(i // 2 % 2)) for i in range(16)))


def disassembled(text: str, architecture: str = "sm_90") -> list[str]:
    """Instructions and labels of a kernel's text compiled for an NVIDIA GPU, matrix products as 16 instructions."""
    source = nvrtc.as_cuda(text)
    start = source.index("template <typename M>\ninline void simdgroup_multiply")
    source = source[:start] + _PRODUCT + source[source.index("template <typename T>\ninline T simd_sum") :]
    code = nvrtc.machine_code(source, architecture, fused=False)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        done = subprocess.run(["nvdisasm", file.name], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if _INSTRUCTION.match(line) or _LABEL.match(line)]


def loops(lines: list[str]) -> list[list[str]]:
    """The instructions of every loop, in the order in which loops end: from a label to a jump back to it."""
    labels: dict[str, int] = {}
    instructions: list[str] = []
    found = []
    for line in lines:
        if label := _LABEL.match(line):
            labels[label[1]] = len(instructions)
            continue
        instructions.append(line)
        jump = _JUMP.search(line)
        if jump and jump[1] in labels:
            found.append(instructions[labels[jump[1]] :])
    return found


def of_a_token(heads: int, rows: int, states: int, per_head: bool, gate: bool, counts: bool = True) -> float:
    """Instructions of a simdgroup for a token in the sequential scan of bfloat16."""
    plan = layout(1, heads, rows, states)
    launch = scan_launch("bfloat16", heads, rows, states, per_head, gate=gate, return_kept=counts)
    inside = loops(disassembled(text_of(launch)))
    main = max(inside[:-2], key=lambda loop: sum("STG" in line for line in loop) * len(loop))
    # The compiler copies Mamba-1's loop, with and without a threshold: a token passes one of the two.
    exponentials = sum("MUFU.EX2" in line for line in main)
    copied = not per_head and exponentials > 1.5 * _AHEAD * (states // plan.lanes + 2)
    total = len(main) / (2 if copied else 1) / _AHEAD
    staging = min((loop for loop in inside if sum("STS" in line for line in loop) >= 2), key=len)
    passes = plan.staged * states / plan.group
    total += len(staging) / (sum("STS" in line for line in staging) / 2) * passes / plan.staged
    if per_head:  # one of the threadgroup's simdgroups works out dt and decay for all
        shared = [loop for loop in inside if any("MUFU.EX2" in line for line in loop) and loop is not main]
        total += min(map(len, shared)) / plan.staged / (plan.group / 32) if shared else 0
    return total


def of_a_head(rows: int, states: int, gate: bool, kept: int = 64) -> float:
    """Instructions of all simdgroups for a token of a head in the chunked scan of bfloat16 with counts, `kept` of a
    chunk's 64 tokens kept, evenly spread (a multiple of 8)."""
    parts = rows // (rows_at_once(rows, states) or rows)
    lines = disassembled(text_of(chunked_launch("bfloat16", 8, rows, states, gate=gate, return_kept=True)))
    inside = loops(lines)
    chunk = next(loop for loop in inside if _barriers(loop) > 2)  # what follows jumps back from behind the kernel
    tile = min((loop for loop in inside if _barriers(loop) == 2), key=len)
    block = max((loop for loop in inside if not _barriers(loop)), key=len)  # of eight kept tokens
    score = _skipped(lines, block)  # for the tokens that see them only
    first = [index for index, line in enumerate(chunk) if "BAR.SYNC" in line][:2]
    sums = first[1] - first[0]  # of one simdgroup for all
    blocks = kept // 8
    seen = sum(8 - 8 * k // blocks for k in range(blocks)) / 8  # on the average of the simdgroups
    each = len(chunk) - len(tile) - sums * 7 / 8 + -(-blocks // 2) * (len(tile) - len(block))
    return parts * (each + blocks * (len(block) - score) + seen * score) * 8 / 64


def _barriers(lines: list[str]) -> int:
    return sum("BAR.SYNC" in line for line in lines)


def _skipped(lines: list[str], loop: list[str]) -> int:
    """How many instructions the longest jump forwards inside a loop passes over."""
    places = {line: index for index, line in enumerate(lines)}
    labels = {label[1]: index for index, line in enumerate(lines) if (label := _LABEL.match(line))}
    longest = 0
    for line in loop:
        jump = _JUMP.search(line)
        if jump and places[line] < labels[jump[1]] < places[loop[-1]]:
            passed = lines[places[line] + 1 : labels[jump[1]]]
            longest = max(longest, sum(not _LABEL.match(line) for line in passed))
    return longest


def main() -> None:
    for name, sizes in {
        "mamba2, 64 rows, 128 states": (80, 64, 128, True, False),
        "mamba2, 64 rows, 64 states": (80, 64, 64, True, False),
        "mamba1, 4096 channels, 16 states": (1, 4096, 16, False, True),
    }.items():
        counted = " ".join(
            f"{of_a_token(*sizes, counts):.0f} ({'with' if counts else 'no'} counts)" for counts in (True, False)
        )
        print(f"{name}: {counted} instructions of a simdgroup for a token")
    for rows, states in ((64, 128), (64, 64), (128, 256), (80, 128)):
        shares = ", ".join(f"{of_a_head(rows, states, False, kept):.0f} ({kept} of 64 kept)" for kept in (64, 32, 8))
        print(f"chunked, {rows} rows, {states} states: {shares} instructions of all simdgroups for a head and token")


if __name__ == "__main__":
    main()
