"""Fuzz every reader of untrusted bytes with atheris, guided by coverage.

    pip install atheris
    python -m tests.security.fuzz [--minutes 5] [TARGET ...]

The targets of `fuzz_targets` run one after the other, each for the given minutes. The next run starts from the corpus
in build/fuzz/TARGET. An input that fails is written to build/fuzz/TARGET-crash-*: put it in
tests/security/crashes/TARGET/ and mend the reader. Exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "fuzz"
SECONDS_EACH = 20  # for one input: more is a hang
MEGABYTES = 2048
LONGEST = 1 << 16  # bytes of an input; longer seeds are left as they are, and cut


def one(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["longmamba_mlx"]):
        from tests.security.fuzz_targets import TARGETS

    corpus = FOLDER / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            sys.argv[0], str(corpus), f"-max_total_time={seconds}", f"-timeout={SECONDS_EACH}", "-print_final_stats=1",
            f"-rss_limit_mb={MEGABYTES}", f"-max_len={LONGEST}", f"-artifact_prefix={FOLDER / name}-",
        ],
        TARGETS[name].run,
    )  # fmt: skip
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz every reader of untrusted bytes.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, if none is given")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each target")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if importlib.util.find_spec("atheris") is None:
        parser.error("atheris is not installed: pip install atheris")
    seconds = max(1, round(given.minutes * 60))
    if given.here:
        one(given.targets[0], seconds)
    from tests.security.fuzz_targets import TARGETS

    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"no target {min(unknown)}; there are: {', '.join(TARGETS)}")
    failed = []
    for name in given.targets or TARGETS:
        words = [sys.executable, "-m", "tests.security.fuzz", "--here", "--minutes", str(given.minutes), name]
        done = subprocess.run(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
        figures = [line for line in done.stderr.splitlines() if line.startswith(("stat::number_of_exec", "stat::peak"))]
        print(
            f"{name}: {'ok' if done.returncode == 0 else f'FAILED ({done.returncode})'}; {'; '.join(figures)}",
            flush=True,
        )
        if done.returncode:
            failed.append(name)
            print(done.stderr[-3000:], file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
