"""``python -m maekit.ablate.child WORDS``: ``maekit WORDS``, which stops when its sweep has died.

A sweep that is killed cannot tell its runs: on Linux the system does, and they save and stop as at
any signal. Elsewhere they train to their end, and a resumed sweep waits for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
PARENT = "MAEKIT_SWEEP"  # in the environment: the process id of the sweep


def stop_with_parent() -> None:
    """Ask the system for a signal at the parent's death; leave if it has died already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.environ.get(PARENT) not in (None, str(os.getppid())):
        from maekit.errors import INTERRUPTED

        raise SystemExit(INTERRUPTED)


if __name__ == "__main__":
    stop_with_parent()
    runpy.run_module("maekit", run_name="__main__", alter_sys=True)
