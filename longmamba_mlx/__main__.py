"""`python -m longmamba_mlx` is the command `longmamba-mlx`."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line. An interrupt while its modules are imported ends the process without a traceback."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not when the shell has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from longmamba_mlx.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
