"""How many instructions a simdgroup spends on a token, in NVIDIA's machine code: a stand-in for Apple's, which nothing
shows here. Needs NVRTC and nvdisasm: `python -m tests.emulator.instructions`."""

from __future__ import annotations

import re
import subprocess
import tempfile

from longmamba_mlx.metal_kernels.sequential_scan import layout
from tests.emulator import nvrtc
from tests.emulator.launches import scan_launch, text_of

_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?);")
_LABEL = re.compile(r"^(\.L_x_\d+):")
_JUMP = re.compile(r"BRA.*`\((\.L_x_\d+)\)")
_AHEAD = 4  # tokens in the body of the innermost loop


def disassembled(text: str, architecture: str = "sm_90") -> list[str]:
    """Instructions and labels of a kernel's text compiled for an NVIDIA GPU."""
    code = nvrtc.machine_code(nvrtc.as_cuda(text), architecture, fused=False)
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


def of_a_token(heads: int, rows: int, states: int, per_head: bool, gate: bool) -> float:
    """Instructions of a simdgroup for a token in the sequential scan of bfloat16 with counts."""
    plan = layout(1, heads, rows, states)
    launch = scan_launch("bfloat16", heads, rows, states, per_head, gate=gate, return_kept=True)
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


def main() -> None:
    for name, sizes in {
        "mamba2, 64 rows, 128 states": (80, 64, 128, True, False),
        "mamba2, 64 rows, 64 states": (80, 64, 64, True, False),
        "mamba1, 4096 channels, 16 states": (1, 4096, 16, False, True),
    }.items():
        print(f"{name}: {of_a_token(*sizes):.0f} instructions of a simdgroup for a token")


if __name__ == "__main__":
    main()
