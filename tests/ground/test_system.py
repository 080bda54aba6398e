"""Memory figures, compared with what the process really holds."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys

from longmamba_mlx.system import peak_bytes, resident_bytes, total_bytes

GROW = 64 << 20


def test_resident_memory_follows_the_process() -> None:
    before = resident_bytes()
    with mmap.mmap(-1, GROW) as block:  # the heap may have room for it already
        block.write(b"x" * GROW)
        grown = resident_bytes()
    assert 0.9 * GROW < grown - before < 1.5 * GROW
    assert 1 << 20 < grown <= 1.1 * peak_bytes() < total_bytes()


def test_another_process_and_one_that_has_ended() -> None:
    script = f"import sys; x = b'x' * {GROW}; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        child.stdout.readline()
        assert resident_bytes(child.pid) > GROW
        child.stdin.close()
    assert resident_bytes(child.pid) == 0 and resident_bytes(os.getpid()) > 0
