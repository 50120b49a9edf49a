"""Sweeps whose runs take no time: what their tests start, kill and wait for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from small_recipes import IMAGES, Recipe, laid_over

from maekit.ablate.run import SweepOptions, Swept, run_sweep
from maekit.engine.run import RunOptions
from maekit.errors import code_of
from maekit.recipe.load import read
from maekit.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS: Recipe = {
    "probe": {"kind": "knn"},
    "finetune": {"steps": 2},
    "ablate": {
        "rows": {
            "random 50": {},
            "random 75": {"set": {"pretrain.masker.ratio": 0.75}},
            "half tuned": {"set": {"finetune.blocks": "half"}},
            "scratch": {"from": "scratch"},
        },
        "measure": ["knn", "finetune", "seconds"],
        "seeds": [0, 1],
    },
}


def sweep_recipe(*layers: Recipe) -> Any:
    return resolve(read(laid_over(IMAGES, ROWS, *layers)))


def swept(out: Path, *layers: Recipe, resume: bool = False, **options: Any) -> Swept:
    run = RunOptions(out=out, resume=resume, signals=True)
    return run_sweep(sweep_recipe(*layers), SweepOptions(run, device="cpu", **options), print)


def forked(body: Callable[[], object]) -> int:
    """Start a call in a process of its own, with all that is imported here; return its id."""
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        result = body()
        code = result.result["exit"] if isinstance(result, Swept) else 0
    except BaseException as error:  # noqa: BLE001 - the exit code says which
        code = code_of(error)
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def wait_for(found: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not found():
        assert time.monotonic() < until
        time.sleep(0.01)


def pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.glob("runs/*/*/*/pid") if path.read_text()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
