"""The small recipe on real pictures: its codes beat mean colors, and can be learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small_recipes import IMAGES, write_recipe
from test_targets_real_data import LEARNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_dvae_tiny_on_scenes(
    cli: Cli, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = shared_data / "scene6-1500"
    data = [f"data.train.path={scenes / 'train'}", f"data.val.path={scenes / 'val'}"]
    done = cli("tokenizer", "dvae_tiny", *data, "--out", "dvae", "--json")
    assert done.code == 0, done.err
    holdout = json.loads(done.out)["holdout"]
    assert holdout["psnr"] > holdout["mean_color_psnr"] + 0.5
    assert holdout["codes_used_fraction"] > 0.05
    write_recipe(Path("target.yaml"), IMAGES, LEARNS, without=("data.workers",))
    target = "pretrain.target={name: dvae-token, weights: dvae, vocabulary: 512, stride: 8}"
    taught = cli("pretrain", "target.yaml", *data, target, "--json")
    assert taught.code == 0, taught.err
    result = json.loads(taught.out)
    assert result["holdout"]["loss"] < result["holdout_start"]["loss"] - 1
