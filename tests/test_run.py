"""``maekit.run``: a verb from Python."""

from __future__ import annotations

import json
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from small_recipes import IMAGES, laid_over, sets

import maekit
from maekit.engine.events import Event, StepDone
from maekit.engine.job import ValidatedJob
from maekit.engine.loop import TrainState
from maekit.errors import NonFiniteError, RecipeError

RECIPE = laid_over(
    IMAGES,
    sets("pictures", "pictures"),
    {"name": "called", "data": {"size": 16}, "pretrain": {"batch": {"global": 4}}},
    without=("data.val",),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("pictures").mkdir()
    for number in range(8):
        pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"pictures/{number}.png")
    return tmp_path


def same_weights(run: str, other: str) -> bool:
    one, two = (load_file(f"{each}/weights.safetensors") for each in (run, other))
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_a_mapping_is_run_and_the_process_left_as_it_was(folder: Path) -> None:
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    loggers = (logging.getLogger().handlers[:], logging.getLogger().level)
    result = maekit.run(RECIPE, out="run")
    assert result == json.loads(Path("run/result.json").read_text())
    assert (result["verb"], result["exit"], result["steps"]) == ("pretrain", 0, 3)
    assert {each: signal.getsignal(each) for each in handlers} == handlers
    assert (logging.getLogger().handlers[:], logging.getLogger().level) == loggers
    again = maekit.run("run/recipe.yaml", overrides=["pretrain.steps=4"], out="longer", seed=1)
    assert again["steps"] == 4


def test_mistakes_are_errors_of_maekit(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"pretrain\.masker\.ration: unknown key"):
        maekit.run(RECIPE, overrides=["pretrain.masker.ration=1"])
    with pytest.raises(RecipeError, match="cannot run"):
        maekit.run(RECIPE, "train")
    assert not Path("runs").exists()


def test_runs_in_a_thread_that_is_not_the_main_one(folder: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        threaded = pool.submit(maekit.run, RECIPE, out="threaded").result()
    assert threaded["exit"] == 0
    maekit.run(RECIPE, out="main")
    assert same_weights("threaded", "main")


def test_an_interrupted_run_is_resumed_to_the_same_end(folder: Path) -> None:
    every = {"overrides": ["pretrain.checkpoint.steps=1", "pretrain.steps=4"]}

    def interrupt(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maekit.run(RECIPE, out="stopped", on_event=interrupt, **every)
    assert json.loads(Path("stopped/result.json").read_text())["exit"] == 130
    done = maekit.run(RECIPE, out="stopped", resume=True, **every)
    whole = maekit.run(RECIPE, out="whole", **every)
    assert done["steps"] == whole["steps"] == 4
    assert same_weights("stopped", "whole")


def test_a_measurement_that_is_not_finite_before_any_update_is_said_as_such(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(job: ValidatedJob, state: TrainState) -> None:
        raise NonFiniteError("a score is not finite")

    monkeypatch.setattr(ValidatedJob, "validate", broken)
    with pytest.raises(NonFiniteError, match="a score is not finite"):
        maekit.run(RECIPE, out="run")
    assert json.loads(Path("run/result.json").read_text())["exit"] == 4
    assert json.loads(Path("run/nan_capture/batches.json").read_text()) == {"steps": {}}
