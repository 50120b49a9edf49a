"""Run folders, damaged: a resume goes on from what is whole, or refuses; nothing whole is lost."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from fuzz import damaged, odd_record
from safetensors.torch import load_file, save_file
from small_recipes import IMAGES, write_recipe
from torch import nn

from maekit.contracts import Dataset
from maekit.engine.checkpoint import Checkpoints, restore
from maekit.engine.loop import TrainState
from maekit.engine.optim import parameter_groups
from maekit.engine.resume import (
    check_data,
    check_same,
    check_source,
    check_verb,
    newest_of,
    record_data,
    record_source,
    recorded_source,
)
from maekit.engine.run_folder import RunFolder, loss_summary, read_lines
from maekit.engine.schedule import Schedule
from maekit.errors import MaekitError
from maekit.recipe.dump import dump
from maekit.recipe.load import load
from maekit.runs import read_result, verb_of
from maekit.weights.checkpoints import FILES, STATE, digest_of, newest_good
from maekit.weights.locate import find_weights
from maekit.weights.safetensors_io import load_exactly, sha256

VERB = "pretrain"
STEPS = (4, 8, 12)


class Names:
    """A data set of which only the names are asked for."""

    labels = None
    classes = None

    def __len__(self) -> int:
        return 8

    def name(self, index: int) -> str:
        return f"{index}.png"

    def containing_file(self, index: int) -> str:
        return self.name(index)


_KEPT = tempfile.TemporaryDirectory(prefix="maekit-fuzz-")
SETS = {"data.train": cast("Dataset", Names())}


def new_state() -> TrainState:
    """Return a training of a few parameters at its start."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    optimizer = torch.optim.AdamW(parameter_groups(model.named_parameters(), 0.05), fused=True)
    return TrainState(model, optimizer, Schedule(99, 0, 0.01, 0.0), 8, 5.0)


def train(state: TrainState, steps: int) -> None:
    """Update a few times."""
    for _ in range(steps):
        state.optimizer.zero_grad()
        state.model(torch.randn(8, 3)).square().sum().backward()
        state.optimizer.step()
        state.step += 1


@functools.cache
def whole() -> tuple[Path, Any]:
    """Write a run that was interrupted; return its folder and its recipe."""
    top = Path(_KEPT.name)
    recipe = load(write_recipe(top / "r.yaml", IMAGES)).recipe
    run = top / "run"
    run.mkdir()
    state = new_state()
    state.extra = {"best": {"step": STEPS[1], "top1": 0.5}}
    checkpoints = Checkpoints(run / "checkpoints", keep=3)
    for step in STEPS:
        train(state, step - state.step)
        state.last_evaluated = step - 1
        checkpoints.save(state, state.model.state_dict(), None)
    (run / "recipe.yaml").write_text(dump(recipe), encoding="utf-8")
    lines = [{"step": step, "loss": 1.0, "lr": 0.1} for step in range(1, 14)]
    lines += [{"step": 12, "holdout": {"loss": 0.5}}]
    texts = {
        "metrics.jsonl": "".join(f"{json.dumps(line)}\n" for line in lines),
        "result.json": json.dumps({"verb": VERB, "exit": 75, "steps": 12}),
        "env.json": json.dumps({"verb": VERB}),
        "log.txt": "a\n",
        "lock": "host pid 1\n",
    }
    for name, text in texts.items():
        (run / name).write_text(text, encoding="utf-8")
    record_source(run, None)
    record_data(run, check_data(run, SETS, resumed=False, accept=False, emit=lambda _: None))
    return run, recipe


def case(rng: random.Random, folder: Path) -> None:
    """Damage a run, then decide what to resume from, go on, and save."""
    source, recipe = whole()
    run = folder / "runs" / recipe.name / "1"
    shutil.copytree(source, run)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        _damage(rng, run)
    intact = _loadable(run)
    before = Path.cwd()
    os.chdir(folder)
    try:
        # Reading a recipe costs more than all the rest: seldom, where it is not damaged.
        asked = rng.random() < 0.05 or not _same(run / "recipe.yaml", source / "recipe.yaml")
        if asked:
            newest_of(recipe, VERB, None)  # as a requeued job looks for its run
        _resume(run, recipe if asked else None)
    except MaekitError:
        if intact and _loadable(run) is None:
            raise AssertionError("the last loadable checkpoint is gone") from None
        raise
    finally:
        os.chdir(before)


def _resume(run: Path, recipe: Any) -> None:
    """Take the steps of maekit.engine.run, without a model and data that cost time."""
    notes: list[object] = []
    with RunFolder(run) as opened:
        check_verb(run, VERB)
        verb_of(run)
        checkpoints = Checkpoints(opened.checkpoints, 2, notes.append)
        found = checkpoints.open()
        state = new_state()
        read_result(run).get("exit")
        if found is not None:
            if recipe is not None:
                check_same(run, recipe, VERB)
            check_source(run, None)
            load_exactly(state.model, restore(state, found), "a checkpoint")
        else:
            recorded_source(run)
        data = check_data(run, SETS, resumed=found is not None, accept=False, emit=notes.append)
        record_data(run, data)
        opened.trim_metrics(state.step, state.last_evaluated)
        loss_summary(line for line in read_lines(run / "metrics.jsonl") if "loss" in line)
        train(state, 1)
        checkpoints.save(state, state.model.state_dict(), None)
        opened.write_result({"exit": 75})
    newest = newest_good(run / "checkpoints").newest
    if newest is None or newest.step != state.step:
        raise AssertionError(f"step {state.step} was saved, {newest} is found")
    find_weights(run)


def _same(path: Path, other: Path) -> bool:
    return path.is_file() and path.read_bytes() == other.read_bytes()


def _loadable(run: Path) -> int | None:
    try:
        found = newest_good(run / "checkpoints").newest
    except MaekitError:
        return None
    return None if found is None else found.step


def _damage(rng: random.Random, run: Path) -> None:
    """Damage a file of a run, or put something else in its place."""
    places = sorted(each for each in run.rglob("*") if not each.is_symlink())
    weighted = [each for each in places if "checkpoints" in each.parts] * 2 + places
    path = rng.choice(weighted)
    kind = rng.random()
    if kind < 0.1:
        _add(rng, run / "checkpoints")
    elif kind < 0.3:
        _replace(rng, path)
    elif path.is_dir():
        if kind < 0.6 and path.name.startswith("step-"):
            to = path.with_name(rng.choice(("step-00000099", "step-00000001", "step-4")))
            if not to.exists():
                path.rename(to)
        elif path.name.startswith("step-"):
            _resigned(rng, path)
    elif not path.is_file():  # a pipe, from the damage before
        return
    elif path.suffix in {".json", ".jsonl"} and kind < 0.7:
        _odd(rng, path)
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))


def _add(rng: random.Random, checkpoints: Path) -> None:
    """Put something among the checkpoints that is none."""
    if not checkpoints.is_dir():
        return
    names = ("step-00000013", f"step-{'9' * 200}", "step-x", ".partial-x", "step-00000012.1")
    path = checkpoints / rng.choice(names)
    if path.exists() or path.is_symlink():
        return
    if rng.random() < 0.5:
        path.mkdir(exist_ok=True)
    else:
        path.write_bytes(rng.randbytes(9))


def _replace(rng: random.Random, path: Path) -> None:
    """Put nothing, a folder, a pipe, a link or an empty file in the place of something."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match rng.randrange(6):
        case 0:
            path.mkdir(parents=True)
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(path.name)
        case 3:
            path.symlink_to(rng.choice(("/dev/null", "/dev/zero", "/", "..", "step-00000004")))
        case 4:
            path.touch()
        case _:
            pass


def _odd(rng: random.Random, path: Path) -> None:
    """Change values; a state.json says that it is whole, as one would that a program wrote."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split(
        "\n" if path.suffix == ".jsonl" else "\0"
    ):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue
        values = odd_record(rng, values) if rng.random() < 0.5 else values
        if path.name == STATE and isinstance(values, dict) and rng.random() < 0.8:
            values["digest"] = digest_of({k: v for k, v in values.items() if k != "digest"})
        rows.append(json.dumps(values))
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))


def _resigned(rng: random.Random, checkpoint: Path) -> None:
    """Change the tensors of a checkpoint, and let state.json say that they are right."""
    path, state = checkpoint / rng.choice(FILES), checkpoint / STATE
    if not path.is_file() or not state.is_file():
        return
    try:
        tensors = load_file(path)
        values = json.loads(state.read_bytes())
        values["sha256"] = dict(values["sha256"])
    except Exception:  # noqa: BLE001 - it was damaged before
        return
    for name in rng.sample(sorted(tensors), min(len(tensors), rng.randint(1, 3))):
        tensor = tensors.pop(name)
        match rng.randrange(5):
            case 0:
                tensors[f"{name}x"] = tensor
            case 1:
                tensors[name] = tensor.reshape(-1)[:1].clone()
            case 2:
                tensors[name] = tensor.to(rng.choice((torch.int64, torch.float16, torch.bool)))
            case 3:
                tensors[name] = torch.zeros((2, 3, 5))
            case _:
                pass
    save_file(tensors, path)
    values["sha256"][path.name] = sha256(path)
    values["digest"] = digest_of({k: v for k, v in values.items() if k != "digest"})
    state.write_text(json.dumps(values), encoding="utf-8")
