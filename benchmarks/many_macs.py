"""Measure reading by ranks on this machine: one rank on one core, then several on one core each.

    python benchmarks/many_macs.py [--model demo] [--tokens 262144] [--ranks 1,2]

Prints tokens/s by the clock, the processor seconds of each rank (in its layers, and in brackets with MLX's waiting,
which is a busy loop), the bytes sent, and how far the logits of the next token are from those of the first run. On a
busy machine only the processor seconds mean anything. Ranks are started by mlx.launch, as `read --ranks` does it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import longmamba_mlx as lm
from longmamba_mlx.builtin import sample_document
from longmamba_mlx.documents import read_document
from longmamba_mlx.ground.steps import run_to_end
from longmamba_mlx.inference.prefill import prefill
from longmamba_mlx.inference.ranks.ring import MLXRing
from longmamba_mlx.inference.ranks.wave import wave_steps
from longmamba_mlx.inference.reading import PrefillOptions
from longmamba_mlx.session.ranks.hosts import free_ports, on_this_machine
from longmamba_mlx.states.checkpoints import places_of


def read_one(model_name: str, tokens: int, size: int, logits_file: str) -> dict[str, object]:
    """Read with this process as one of `size` ranks."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ.get("MLX_RANK", "0")) % len(cores)]})
    model = lm.load(model_name)
    ids = np.resize(model.tokenizer.encode(read_document(sample_document()).text), tokens).astype(np.uint32)
    plan, network = model.plan(len(ids), ids), model.loaded.model
    prefill(network, ids[:1024], None)  # whatever the first call loads
    ring = MLXRing() if size > 1 else None
    if ring is not None:
        ring.gather(np.zeros(1, np.uint8))
    clock, processor, own = time.monotonic(), time.process_time(), time.thread_time()
    if ring is None:
        reading = prefill(network, ids, plan, chunk=512, logits="none")
    else:
        marks = places_of(len(ids), 512, network.initial_state().nbytes)
        reading = run_to_end(wave_steps(network, ids, plan, PrefillOptions(512), ring, marks))
    seconds, processor, own = time.monotonic() - clock, time.process_time() - processor, time.thread_time() - own
    if reading is not None:
        hidden, _ = network(mx.array([[5]]), reading.state)
        np.save(logits_file, np.array(network.head(hidden)[0, -1]))
    if ring is not None:
        ring.gather(np.zeros(1, np.uint8))
    return {"rank": 0 if ring is None else ring.rank, "seconds": seconds, "processor": processor, "own": own,
            "sent": 0 if ring is None else ring.sent}  # fmt: skip


def run(model: str, tokens: int, size: int, logits_file: str) -> list[dict[str, object]]:
    """Read with `size` ranks: what each of them says, in order."""
    own = [sys.executable, __file__, "--as-rank", str(size), "--logits", logits_file, "--model", model]
    command = [*own, "--tokens", str(tokens)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if size > 1:
            hostfile = Path(folder, "hosts.json")
            hostfile.write_text(json.dumps(on_this_machine(size)))
            launch = [str(Path(sys.executable).with_name("mlx.launch")), "--backend", "ring", "--hostfile"]
            command = [*launch, str(hostfile), "--starting-port", str(free_ports(size)), "--", *command]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a pipe has two ends")
        told = []
        for line in process.stdout:
            if size > 1 and line.startswith("started"):
                process.stdin.write("\n")  # refused by the rank: mlx.launch stops offering input in a busy loop
                process.stdin.flush()
            elif line.startswith("{"):
                told.append(json.loads(line))
        process.wait()
    if len(told) != size:
        raise RuntimeError("a rank did not come to its end")
    return sorted(told, key=lambda rank: rank["rank"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokens", type=int, default=262_144)
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--as-rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--logits", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_rank:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        print("started", flush=True)
        print(json.dumps(read_one(options.model, options.tokens, options.as_rank, options.logits)), flush=True)
        return
    processor = "processor seconds of each rank (and with waiting)"
    columns = ("ranks", "tokens/s by the clock", processor, "bytes sent together", "logits differ by")
    print(f"| {' | '.join(columns)} |")
    print("|---|---|---|---|---|")
    first = None
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, options.ranks.split(",")):
            told = run(options.model, options.tokens, size, f"{folder}/logits.npy")
            logits = np.load(f"{folder}/logits.npy")
            first = logits if first is None else first
            speed = options.tokens / max(float(str(rank["seconds"])) for rank in told)
            processor = ", ".join(f"{rank['own']:.1f} ({rank['processor']:.1f})" for rank in told)
            sent = sum(int(str(rank["sent"])) for rank in told)
            print(
                f"| {size} | {speed:,.0f} | {processor} | {sent:,} | {np.abs(logits - first).max():.1e} |", flush=True
            )


if __name__ == "__main__":
    main()
