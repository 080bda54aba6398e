"""`python -m longmamba_mlx` is the command `longmamba-mlx`."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line. An interrupt ends it without a traceback, from the first line to the last.

    While modules are imported, and once the work is done, the system ends the process itself; what arrives between
    lines that answer an interrupt is caught here.
    """
    try:
        answered = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not when the shell has it ignored
        if answered:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        from longmamba_mlx.cli import main as run
        from longmamba_mlx.cli.interrupts import send_again_what_is_swallowed

        send_again_what_is_swallowed()
        if answered:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            run()
        finally:
            if answered:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        sys.exit(130)  # errors.INTERRUPTED, which may not be imported yet


if __name__ == "__main__":
    main()
