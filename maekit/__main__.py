"""``maekit`` and ``python -m maekit``."""

from __future__ import annotations

import os
import signal
import sys

UTF8 = "PYTHONUTF8"


def main() -> None:
    """Run the command line; Ctrl-C never prints a traceback, however early or late it comes."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:  # else it is ignored, as in a shell's background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _leave_ascii()
    from maekit.errors import STOPPED
    from maekit.stop import leaving_at_once, without_hooks

    with leaving_at_once():
        from maekit.cli.app import main as command_line

    try:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        command_line()
    except KeyboardInterrupt:  # before a command began, or the second while it left
        sys.exit(STOPPED)
    except SystemExit as ended:
        without_hooks(ended.code)
        raise
    finally:
        if usual:  # what was to be done is done, and the exit code stands
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave_ascii() -> None:
    """Start anew with UTF-8, where the locale knows ASCII alone.

    Recipes and lists are UTF-8 and name files; a Python that is held to ASCII (PYTHONUTF8=0, or
    PYTHONCOERCECLOCALE=0 besides LC_ALL=C) can open none with another letter.
    """
    ascii_only = sys.getfilesystemencoding() in {"ascii", "us-ascii"}
    if not ascii_only or os.name != "posix" or os.environ.get(UTF8) == "1" or not sys.executable:
        return
    os.environ[UTF8] = "1"  # for loader workers as well
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main()
