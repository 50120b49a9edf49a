"""A step on an accelerator never waits for it: nothing of it is read back on the host.

The meta device stands in for the accelerator: its tensors hold nothing, so that whatever would read
one (a number, the places of a mask, a copy to the host) fails. A copy to it must not block.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import IMAGES, Recipe, draw_sides, draw_tints, sets, write_recipe
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maekit.data.batch import BatchBuilder
from maekit.engine.job import Job
from maekit.engine.loop import Weighed, update
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.verbs import JOBS

META = torch.device("meta")
STEPS: Recipe = {"steps": 4, "warmup": {"steps": 1}, "batch": {"global": 4}}
PRETRAIN: Recipe = {"pretrain": {**STEPS, "clip_grad": 0.5}}
FINETUNE: Recipe = {
    "finetune": {**STEPS, "ema": 0.9, "layer_decay": 0.7, "clip_grad": 1.0, "label_smoothing": 0.1}
}
RECOMPUTED: Recipe = {"pretrain": {"activation_checkpointing": True}}
MIXED: Recipe = {"finetune": {"mixup": 0.8, "cutmix": 1.0, "erase": 0.5}}
TOKENIZER: Recipe = {
    "tokenizer": {
        **STEPS,
        "optimizer": {"base_lr": 0.1},
        "dvae": {"vocabulary": 8, "width": 4, "init_width": 4, "groups": 2, "blocks": 1},
    }
}
PROBE: Recipe = {"probe": {**STEPS, "steps": 60, "kind": "linear", "protocol": "paper"}}
CASES: dict[str, tuple[str, str, list[Recipe]]] = {
    "norm-pixel": ("pretrain", "sides", [PRETRAIN]),
    "pixel": ("pretrain", "sides", [PRETRAIN, {"pretrain": {"target": {"name": "pixel"}}}]),
    "all": ("pretrain", "sides", [PRETRAIN, {"pretrain": {"loss_on": "all", "repeats": 2}}]),
    "recomputed": ("pretrain", "sides", [PRETRAIN, RECOMPUTED]),
    "finetune": ("finetune", "sides", [FINETUNE]),
    "mixed": ("finetune", "sides", [FINETUNE, MIXED]),
    "tokenizer": ("tokenizer", "sides", [TOKENIZER]),
    "probe": ("probe", "tints", [PROBE]),
}  # fmt: skip


class Copies(TorchDispatchMode):
    """Counts copies from the host to the device that wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocking: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = function(*args, **kwargs)
        if function is torch.ops.aten._to_copy.default:
            crosses = made.device.type == "meta" != args[0].device.type
            if crosses and not kwargs.get("non_blocking"):
                self.blocking.append(f"{tuple(made.shape)}")
        elif function is torch.ops.aten.copy_.default and isinstance(args[1], Tensor):
            waits = len(args) < 3 or not args[2]
            if args[0].device != args[1].device and args[1].ndim and waits:
                self.blocking.append(f"{tuple(args[0].shape)}")
        return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sync")
    for draw, name in ((draw_sides, "sides"), (draw_tints, "tints")):
        draw(folder / name / "train", 4, seed=0)
        draw(folder / name / "val", 4, seed=1)
    return folder


@pytest.fixture(autouse=True)
def _noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take noise as it is: the device draws none."""

    def gumbel(keys: Any, shape: Any, seed: Any, device: Any) -> Tensor:
        return torch.empty(len(keys), *shape, device=device)

    monkeypatch.setattr("maekit.tokenizer.train.gumbel_noise", gumbel)
    monkeypatch.setattr("maekit.evaluate.augment._noise", lambda *_: None)


def job_of(name: str, folder: Path) -> Job:
    verb, data, layers = CASES[name]
    path = folder / f"{name}.yaml"
    write_recipe(path, IMAGES, sets(folder / data), *layers)
    recipe = resolve(load(path), verb)
    source = None if verb in ("pretrain", "tokenizer") else "scratch"
    job = JOBS[verb](recipe, META, lambda _: None, source=source)
    if verb == "tokenizer":
        job.step._checked = True  # the range of pixels, once a run
    optimizer = job.state.optimizer
    for group in optimizer.param_groups:
        group["fused"] = None  # torch's own kernel, which does not know this device
    step = optimizer.step

    def unfused() -> None:
        if verb != "probe":  # LARS is our own
            optimizer.found_inf = None
        step()

    optimizer.step = unfused
    return job


def steps(job: Job) -> Copies:
    """Make one update that warms up, and another that is watched."""
    job.model.train()
    copies = Copies()
    for number in (0, 1):
        keys = job.stream.keys(number)
        builder = BatchBuilder(job.reader.layout, keys)
        for place, key in enumerate(keys):
            builder.put(place, job.reader.read(key))
        batch = builder.finish()
        batch.weight[0] = 0  # a bad file
        if number == 0:
            update(job.state, job.step, [batch])
            continue
        with copies:
            update(job.state, job.step, [batch, batch])
    return copies


@pytest.mark.parametrize("name", CASES)
def test_a_step_reads_nothing_back_and_waits_for_no_copy(name: str, folder: Path) -> None:
    assert steps(job_of(name, folder)).blocking == []


class Reading:
    """A step that does what must not be done."""

    def __init__(self, step: Any, what: str) -> None:
        self.step, self.what, self.weigh = step, what, step.weigh

    def loss(self, weighed: Weighed) -> Tensor:
        loss = self.step.loss(weighed)
        if self.what == "number":
            return loss / float(loss)
        if self.what == "branch":
            return loss if loss > 0 else -loss
        if self.what == "places":
            return loss + loss[None][loss[None] > 0].sum()
        return loss * torch.ones(3).to(loss.device).sum()


@pytest.mark.parametrize("what", ["number", "branch", "places"])
def test_what_reads_back_is_noticed(what: str, folder: Path) -> None:
    job = job_of("norm-pixel", folder)
    job.step = Reading(job.step, what)
    with pytest.raises((RuntimeError, NotImplementedError)):
        steps(job)


def test_a_copy_that_waits_is_noticed(folder: Path) -> None:
    job = job_of("norm-pixel", folder)
    job.step = Reading(job.step, "copy")
    assert steps(job).blocking == ["(3,)", "(3,)"]
