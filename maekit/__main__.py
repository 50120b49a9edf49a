"""``maekit`` and ``python -m maekit``."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line; Ctrl-C never prints a traceback, however early or late it comes."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:  # else it is ignored, as in a shell's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from maekit.cli.app import main as command_line

    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command_line()
    finally:
        if usual:  # what was to be done is done, and the exit code stands
            signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    main()
