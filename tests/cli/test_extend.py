"""Finished runs that go on: ``--resume --extend``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from small_runs import losses, result_of, weights

import maekit
from maekit.engine.extension import Extension, _joined, read_extensions
from maekit.engine.run_folder import read_lines
from maekit.engine.schedule import Schedule
from maekit.errors import Interrupted, RecipeError
from maekit.evaluate.finetune import FinetuneJob
from maekit.tokenizer.train import TokenizerStep
from maekit.weights.safetensors_io import AVERAGE, read_tensors

if TYPE_CHECKING:
    from small_runs import Cli

    from maekit.engine.loop import TrainState

PLAN = Schedule(steps=100, warmup=10, peak=1.0, floor=0.1)


def rates(run: str) -> list[float]:
    return [line["lr"] for line in read_lines(Path(run) / "metrics.jsonl") if "loss" in line]


def test_a_schedule_as_planned_is_that_of_the_longer_run_from_there_on() -> None:
    longer = Schedule(steps=200, warmup=10, peak=1.0, floor=0.1)
    joined = _joined([Extension(100, "planned", 100, 10)], longer)
    assert [joined.lr(step) for step in range(100)] == [PLAN.lr(step) for step in range(100)]
    assert [joined.lr(step) for step in range(100, 200)] == [
        longer.lr(step) for step in range(100, 200)
    ]


def test_a_schedule_restarted_is_a_run_of_its_own_from_there_on() -> None:
    longer = Schedule(steps=160, warmup=10, peak=1.0, floor=0.1)
    joined = _joined([Extension(100, "restart", 100, 10)], longer)
    own = Schedule(steps=60, warmup=10, peak=1.0, floor=0.1)
    assert [joined.lr(step) for step in range(160)] == [
        *(PLAN.lr(step) for step in range(100)),
        *(own.lr(step) for step in range(60)),
    ]


def test_a_schedule_extended_twice_keeps_both_pasts() -> None:
    made = [Extension(100, "restart", 100, 10), Extension(130, "planned", 160, 10)]
    joined = _joined(made, Schedule(steps=300, warmup=10, peak=1.0, floor=0.1))
    once = _joined(made[:1], Schedule(steps=160, warmup=10, peak=1.0, floor=0.1))
    assert [joined.lr(step) for step in range(130)] == [once.lr(step) for step in range(130)]
    last = Schedule(steps=300, warmup=10, peak=1.0, floor=0.1)
    assert (joined.first_steps, once.first_steps, last.first_steps) == (100, 100, 300)
    assert joined.lr(130) == last.lr(130)
    assert joined.lr(299) == last.lr(299)


def test_extended_runs_go_on_and_survive_a_kill(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    first, ended = losses("run"), result_of("run")
    shutil.copytree("run", "again")
    longer = ["--resume", "--extend", "pretrain.steps=24"]
    planned = cli("pretrain", small, "--out", "run", *longer)
    assert planned.code == 0, planned.err
    assert "extended from 12 to 24 steps at step 12, as planned" in planned.err
    assert "schedule of its own" not in planned.err  # this target has none
    assert losses("run")[:12] == first
    assert len(losses("run")) == 24
    assert result_of("run")["steps"] == 24
    assert json.loads(Path("run/result-12.json").read_text()) == ended
    assert cli("pretrain", small, "pretrain.steps=24", "--out", "straight", "-q").code == 0
    assert rates("run")[12:] == rates("straight")[12:]
    assert rates("run")[:12] == rates("again")
    # The other way from the same step: the next loss is the same, since weights and batch are.
    words = ["pretrain", small, "--out", "again", *longer, "--extend-as", "restart"]
    assert cli(*words, "-q").code == 0
    assert losses("again")[:13] == losses("run")[:13]
    assert losses("again")[14:] != losses("run")[14:]
    assert rates("again")[12:15] == [0.0, pytest.approx(rates("again")[14] / 2), max(rates("run"))]
    # As if it had been killed after step 20, and its job were started by the same words.
    whole, curve = weights("again"), losses("again")
    (Path("again") / "result.json").unlink()
    (Path("again") / "checkpoints/step-00000024/state.json").unlink()
    resumed = cli(*words[:-2])  # without its --extend-as
    assert (resumed.code, "extended as restart before, and goes on so" in resumed.err) == (0, True)
    assert all(torch.equal(whole[name], each) for name, each in weights("again").items())
    assert losses("again") == curve
    assert len(read_extensions(Path("again"))) == 1
    assert "is finished" in cli(*words).err


def test_what_cannot_be_extended_is_refused_and_left_as_it_was(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    before = {path: path.read_bytes() for path in Path("run").glob("*.*") if path.suffix != ".txt"}
    words = ["pretrain", small, "--out", "run", "--resume", "--extend"]
    cases = {
        ("pretrain.steps=12.0",): "expected a whole number",
        ("pretrain.steps=8",): "8 updates are no more than the 12 of before",
        ("pretrain.masker.ratio=0.6",): "no longer budget of this verb",
        ("finetune.epochs=9",): "one of pretrain.epochs, pretrain.steps, pretrain.samples",
        ("pretrain.steps=24", "pretrain.masker.ratio=0.6"): "pretrain.masker.ratio: 0.5 before",
        ("pretrain.steps=24", "--dry-run"): "a dry run is of a run from its start",
    }
    for more, said in cases.items():
        refused = cli(*words, *more)
        assert refused.code == 2, refused.err
        assert said in refused.err
    assert "add --resume" in cli("pretrain", small, "--extend", "pretrain.steps=24").err
    assert "--extend is not given" in cli(*words[:-1], "--extend-as", "planned").err
    nothing = cli("pretrain", small, "--out", "none", *words[4:], "pretrain.steps=24")
    assert (nothing.code, "no checkpoint here" in nothing.err) == (2, True)
    plain = cli("pretrain", small, "--out", "run", "--resume", "pretrain.steps=24")
    assert (plain.code, "--extend pretrain.steps=24" in plain.err) == (2, True)
    Path("pictures/train/000.png").rename("pictures/train/abc.png")
    assert cli(*words, "pretrain.steps=24").code == 2  # other data
    assert {path: path.read_bytes() for path in before} == before


def test_a_signal_before_it_goes_on_leaves_the_run_as_it_was(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("pretrain", small, "--out", "run", "-q").code == 0
    before = {path: path.read_bytes() for path in Path("run").glob("*.*") if path.suffix != ".txt"}
    words = ["pretrain", small, "--out", "run", "--resume", "--extend", "pretrain.steps=20"]

    def interrupted(*_: object, **__: object) -> None:
        raise Interrupted("interrupted")

    for name in ("maekit.engine.job.open_sets", "maekit.engine.run.check_data"):
        with monkeypatch.context() as patched:
            patched.setattr(name, interrupted)
            stopped = cli(*words, "--extend-as", "restart")
            assert stopped.code == 75, stopped.err
            said = " ".join(stopped.err.split())
            assert "--extend pretrain.steps=20 --extend-as restart" in said
            again = maekit.run(small, out="run", resume=True, extend="pretrain.steps=20")
            assert again.items() >= {"verb": "pretrain", "exit": 75}.items()
            assert {path: path.read_bytes() for path in before} == before
    with monkeypatch.context() as patched:  # no extension, and yet nothing is recorded
        patched.setattr("maekit.engine.run.check_data", interrupted)
        (Path("run") / "result.json").unlink()
        stopped = cli("pretrain", small, "--out", "run", "--resume")
        assert (stopped.code, "--extend" in stopped.err) == (75, False), stopped.err
    # What is said to type does go on with it.
    words = ["pretrain", "run/recipe.yaml", *words[2:], "--extend-as", "restart", "--json"]
    assert json.loads(cli(*words).out)["steps"] == 20


def test_the_newest_run_is_found_by_its_recipe(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "-q").code == 0
    done = cli("pretrain", small, "--resume", "--extend", "pretrain.epochs=4", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["steps"] == 24
    absent = cli("pretrain", small, "seed=5", "--resume", "--extend", "pretrain.epochs=4")
    assert (absent.code, "no run of this recipe" in absent.err) == (2, True)


@pytest.mark.slow
def test_a_fine_tuning_keeps_its_average_and_its_best(cli: Cli, two: str) -> None:
    words = ["finetune", two, "--from", "scratch", "finetune.ema=0.9", "finetune.validate.every=3"]
    assert cli(*words, "--out", "run", "-q").code == 0
    old = read_tensors(Path("run/checkpoints/step-00000012/model.safetensors"))
    best = result_of("run")["best"]
    longer = ["--resume", "--extend", "finetune.steps=15", "finetune.checkpoint.steps=1"]
    done = cli(*words, "finetune.checkpoint.keep=9", "--out", "run", *longer)
    assert done.code == 0, done.err
    new = read_tensors(Path("run/checkpoints/step-00000013/model.safetensors"))
    names = {name: name.removeprefix(AVERAGE) for name in new if name.startswith(AVERAGE)}
    shared = {name: own for name, own in names.items() if own in new}
    assert len(shared) > len(names) / 2  # the head's have other names
    for name, own in shared.items():
        expected = torch.lerp(old[name], new[own], 0.1)
        assert torch.allclose(new[name], expected, rtol=1e-5, atol=1e-7), name
    later = result_of("run")["best"]
    assert later == best or later["top1"] > best["top1"]
    dropped = cli(*words, "--out", "run", "--resume", "~finetune.steps")  # its default: 20 epochs
    assert (dropped.code, "made with another recipe: finetune.steps" in dropped.err) == (2, True)


@pytest.mark.slow
def test_a_fine_tuning_that_is_stopped_says_what_it_came_to(
    cli: Cli, two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["finetune", two, "--from", "scratch", "--out", "run"]
    assert cli(*words, "-q").code == 0
    before, whole = result_of("run"), FinetuneJob.evaluate

    def stopped_after_one(job: FinetuneJob, state: TrainState) -> None:
        if state.step == 15:
            raise Interrupted("interrupted")
        whole(job, state)

    monkeypatch.setattr(FinetuneJob, "evaluate", stopped_after_one)
    longer = ["--resume", "--extend", "finetune.steps=20", "finetune.validate.every=1"]
    assert cli(*words, *longer).code == 75
    after = result_of("run")
    assert after["steps"] == 15
    measured = [line["test"] for line in read_lines(Path("run/metrics.jsonl")) if "test" in line]
    assert after.items() >= measured[-1].items()
    assert before["calibration"]  # which is of the end alone
    assert "calibration" not in after


def test_a_tokenizer_keeps_its_ramps(cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dvae = "{vocabulary: 8, width: 4, init_width: 4, groups: 2, blocks: 1}"
    words = ["tokenizer", small, "tokenizer.steps=2", f"tokenizer.dvae={dvae}", "--out", "run"]
    words += ["tokenizer.batch.global=8", "tokenizer.pictures=null"]
    # Of the ramps one was cut to the first budget, and one ended within it.
    words += ["tokenizer.temperature={start: 1, end: 0.5, steps: 9}"]
    words += ["tokenizer.kl_weight={start: 0, end: 2, steps: 1}"]
    seen: list[tuple[float, float]] = []
    whole = TokenizerStep._annealed

    def noting(step: TokenizerStep, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        values = whole(step, device)
        seen.append((float(values[0]), float(values[1])))
        return values

    monkeypatch.setattr(TokenizerStep, "_annealed", noting)
    first = cli(*words)
    assert first.code == 0, first.err
    assert "tokenizer.temperature.steps 9 is longer than the budget: cut to 2" in first.err
    done = cli(*words, "--resume", "--extend", "tokenizer.steps=4", "--extend-as", "restart")
    assert done.code == 0, done.err
    said = " ".join(done.err.split())
    assert "tokenizer.temperature stays cut to 2 steps: 0.5 now and before" in said
    assert "kl_weight" not in said
    assert "9 is longer than the budget: cut to 2" in said
    # Half a cosine from 1 to 0.5 over two steps; then it stays, with four steps as well.
    assert seen == [(1.0, 0.0), (0.75, 2.0), (0.5, 2.0), (0.5, 2.0)]
    assert len(losses("run")) == 4


def test_from_python(small: str) -> None:
    with pytest.raises(RecipeError, match="a run is extended where it is resumed"):
        maekit.run(small, extend="pretrain.steps=24")
    with pytest.raises(RecipeError, match="cannot be extended"):
        maekit.run(small, "probe", extend="probe.epochs=24", resume=True)
    assert maekit.run(small, out="run")["steps"] == 12
    more = maekit.run(small, out="run", resume=True, extend="pretrain.samples=160")
    assert more["steps"] == 20
