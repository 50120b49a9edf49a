"""``python -m maekit.ablate.child WORDS``: ``maekit WORDS``, which stops when its sweep has died.

A sweep that is killed cannot tell its runs: on Linux the system does, and they save and stop as at
any signal. Elsewhere they train to their end, and a resumed sweep waits for them.
"""

from __future__ import annotations

import runpy

from maekit.ranks import follow_parent
from maekit.stop import leaving_at_once

PARENT = "MAEKIT_SWEEP"  # in the environment: the process id of the sweep


if __name__ == "__main__":
    with leaving_at_once():
        follow_parent(PARENT)
    runpy.run_module("maekit", run_name="__main__", alter_sys=True)
