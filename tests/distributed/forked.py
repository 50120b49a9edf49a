"""Run ``maekit`` on several ranks, each a fork of one process that has imported everything.

    python -m tests.distributed.forked FOLDER < cases.json

A case is ``{"name": ..., "ranks": N, "words": [...]}``; they run one after the other in FOLDER,
and what each rank said and its exit code end up in ``FOLDER/<name>.<rank>.txt`` and on stdout. With
``"rewound": [RUN, STEP]`` it begins in a copy of a run's folder as it was after its checkpoint of
that step, had it been killed then. With ``"sgd": true`` pre-training's optimizer is SGD. Which
samples and masks each update saw ends up in ``FOLDER/<name>.<rank>.seen``, a line an update.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["GLOO_SOCKET_IFNAME"] = "lo"

import PIL.Image

from maekit.cli import app
from maekit.data.batch import Batch
from maekit.engine import loop, optim, pretrain
from tests.faults.kills import IMPORTED

DISTRIBUTED = ("torch.distributed", "torch.nn.parallel")  # what ranks import besides


def run(
    name: str, ranks: int, words: Sequence[str], folder: Path, *, sgd: bool = False
) -> list[int]:
    """Run a command on so many ranks; return their exit codes."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            if ranks > 1:
                os.environ.update(RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            if sgd:
                pretrain.make_optimizer = _make_sgd  # type: ignore[assignment]
            loop.update = _noting(loop.update, folder / f"{name}.{rank}.seen")
            _be_a_rank(words, folder, folder / f"{name}.{rank}.txt")
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def _make_sgd(model: Any, options: Any, free: Iterable[str] = ()) -> Any:
    groups = optim.parameter_groups(model.named_parameters(), options.weight_decay, free)
    return optim.make_sgd(groups, 0.9)


def _noting(update: Callable[..., Any], place: Path) -> Callable[..., Any]:
    """Let updates write down what they see: of each sample its key, and a digest of its mask."""

    def noted(state: Any, step: Any, batches: Sequence[Batch], *more: Any) -> Any:
        seen = [
            [*key, "" if batch.hidden is None else hashlib.sha256(mask.tobytes()).hexdigest()]
            for batch in batches
            for key, mask in zip(
                [key for key in batch.keys for _ in range(len(batch.weight) // len(batch.keys))],
                batch.weight if batch.hidden is None else batch.hidden,
                strict=True,
            )
        ]
        with place.open("a") as file:
            file.write(json.dumps(seen) + "\n")
        return update(state, step, batches, *more)

    return noted


def _be_a_rank(words: Sequence[str], folder: Path, said: Path) -> NoReturn:
    code = 1
    try:
        os.chdir(folder)
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        for place in (1, 2):
            os.dup2(output, place)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        try:
            app.main(list(words))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is told and judged
        traceback.print_exc()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for name in (*IMPORTED, *DISTRIBUTED):
        with suppress(ImportError):
            import_module(name)
    PIL.Image.init()
    app.command_tree()
    folder = Path(sys.argv[1])
    cases = json.load(sys.stdin)
    codes = {}
    for case in cases:
        if "rewound" in case:
            _rewind(folder, case["name"], *case["rewound"])
        sgd = case.get("sgd", False)
        codes[case["name"]] = run(case["name"], case["ranks"], case["words"], folder, sgd=sgd)
    sys.stdout.write(json.dumps(codes) + "\n")


def _rewind(folder: Path, name: str, run_name: str, step: int) -> None:
    copy = folder / name
    shutil.copytree(folder / run_name, copy)
    for made in ("result.json", "weights.safetensors"):
        (copy / made).unlink()
    for checkpoint in (copy / "checkpoints").glob("step-*"):
        if int(checkpoint.name.partition("-")[2]) > step:
            shutil.rmtree(checkpoint)


if __name__ == "__main__":
    main()
