"""Call a function in a fresh process, as loader workers are started."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

# What a worker has no use for and pays for: torch alone takes seconds and hundreds of megabytes.
HEAVY = ("torch", "torchvision", "timm")
_LIMIT = 300.0  # seconds
_CHILD = """
import os, pickle, sys
out = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # what parts print is not the answer
sys.path[:] = pickle.load(sys.stdin.buffer)
try:
    function, arguments = pickle.loads(pickle.load(sys.stdin.buffer))
    answer = function(*arguments), None
except BaseException as error:
    answer = None, f"{type(error).__name__}: {error}"
heavy = [name for name in %r if name in sys.modules]
out.write(pickle.dumps((*answer, heavy)))
"""


def called(jobs: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Call several functions, each with its arguments, as a single job."""
    return [function(*arguments) for function, *arguments in jobs]


def in_worker(function: Callable[..., Any], *arguments: object) -> tuple[Any, list[str]]:
    """Return what a function returns in a fresh process, and which heavy modules are there then.

    Raises:
        AssertionError: it cannot be sent there, or raises there.
    """
    payload = pickle.dumps((function, arguments))
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    done = subprocess.run(  # noqa: S603 - this interpreter
        [sys.executable, "-c", _CHILD % (HEAVY,)],
        input=pickle.dumps(list(sys.path)) + pickle.dumps(payload),
        capture_output=True,
        timeout=_LIMIT,
        check=False,
        env=environment,
    )
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        msg = f"a worker process with it ends with {done.returncode}: {said}"
        raise AssertionError(msg)
    result, failed, heavy = pickle.loads(done.stdout)  # noqa: S301 - our own child's
    assert failed is None, f"in a worker process it raises {failed}"
    return result, heavy
