"""A target that is fitted: once, before step 0, kept with the weights, never on resume."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_recipes import IMAGES, sets, write_recipe
from torch import Tensor

from maekit import registry
from maekit.engine.build import load_model
from maekit.engine.checkpoint import Checkpoints
from maekit.engine.pretrain import PretrainJob
from maekit.errors import WeightsError
from maekit.recipe.load import load
from maekit.registry import resolve
from maekit.targets.pixel import Pixel


class Centered(Pixel):
    """Pixels minus the mean patch of what it was fitted on."""

    fits = 0

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """One tensor, from the batches' own clips."""
        type(self).fits += 1
        means = [self._patches(views[0]).mean(dim=(0, 1)) for views in batches]
        assert means
        self.mean_patch = torch.stack(means).mean(dim=0)

    def state(self) -> dict[str, Tensor]:
        return {"mean_patch": self.mean_patch}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.mean_patch = tensors["mean_patch"]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainJob:
    rng = np.random.default_rng(0)
    for number in range(9):
        array = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / f"{number}.png")
    fitted = {"name": "fitted", "data": {"size": 16}, "pretrain": {"batch": {"global": 4}}}
    write_recipe(
        tmp_path / "fitted.yaml", IMAGES, sets(tmp_path, tmp_path), fitted, without=("data.val",)
    )
    plain = registry.build

    def build(spec: Any, context: Any = None) -> Any:
        if spec.kind == "targets":
            return Centered(Centered.Options(), context)
        return plain(spec, context)

    monkeypatch.setattr(registry, "build", build)
    Centered.fits = 0
    recipe = resolve(load(tmp_path / "fitted.yaml"), "pretrain")
    return PretrainJob(recipe, torch.device("cpu"), lambda event: None)


def test_fitted_before_the_first_step_and_saved_with_the_weights(
    job: PretrainJob, tmp_path: Path
) -> None:
    job.prepare(None)
    assert Centered.fits == 1
    assert job.state.step == 0
    job.export(tmp_path / "weights.safetensors")
    model, _ = load_model(tmp_path / "weights.safetensors")
    assert isinstance(model.target, Centered)
    assert isinstance(job.model.target, Centered)
    assert torch.equal(model.target.mean_patch, job.model.target.mean_patch)
    assert Centered.fits == 1


def test_never_fitted_on_resume(job: PretrainJob, tmp_path: Path) -> None:
    job.prepare(None)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=1)
    job.save(checkpoints)
    fitted = copy.deepcopy(job.model.target.mean_patch)  # type: ignore[union-attr]
    job.model.target.mean_patch = None  # type: ignore[union-attr]
    job.prepare(checkpoints.open())
    assert Centered.fits == 1
    assert torch.equal(job.model.target.mean_patch, fitted)  # type: ignore[union-attr]


def test_fitted_tensors_without_a_target_for_them_are_refused(
    job: PretrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.prepare(None)
    job.export(tmp_path / "weights.safetensors")
    monkeypatch.undo()
    with pytest.raises(WeightsError, match=r"target\.mean_patch"):
        load_model(tmp_path / "weights.safetensors")
