"""The linear probe by the paper's protocol: against plain arithmetic, resumed, every key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from small_runs import losses, result_of, same_weights
from torch import nn

from maekit.data.order import Key
from maekit.datasets.images import Images
from maekit.engine.run_folder import read_lines
from maekit.engine.schedule import peak_lr
from maekit.evaluate import probe_training
from maekit.evaluate.classifier import load_classifier
from maekit.recipe.load import load
from maekit.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

PAPER = (
    "probe.protocol=paper",
    "probe.steps=6",
    "probe.warmup.steps=2",
    "probe.batch.global=12",
    "probe.optimizer.base_lr=10",
    "probe.checkpoint.steps=2",
)
SCRATCH = ("--from", "scratch")


def probed(cli: Cli, labeled: str, out: str, *words: str) -> dict[str, Any]:
    result = cli("probe", labeled, *PAPER, *SCRATCH, "--json", "-q", "--out", out, *words)
    assert result.code == 0, result.err
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_result_and_files(cli: Cli, labeled: str) -> None:
    result = probed(cli, labeled, "out", "--compare-expected")
    assert (result["verb"], result["exit"], result["protocol"]) == ("probe", 0, "linear/paper")
    assert (result["steps"], result["samples"]) == (6, 72)
    assert result["floor"].keys() == {"random", "pixels"}
    assert result["settings"]["optimizer"]["name"] == "lars"
    assert result["expected"][0]["inside"] is True
    assert len(losses("out")) == 6
    lines = list(read_lines(Path("out/predictions.jsonl")))
    right = [int(np.argmax(line["scores"]) == line["label"]) for line in lines]
    assert np.mean(right) == pytest.approx(result["top1"])


def test_an_untrained_encoder_is_its_own_floor(
    cli: Cli, labeled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, np.ndarray] = {}
    result = probe_training.ProbeSetup.result

    def noting(self: Any, judged: Any) -> Any:
        seen.update({name: each.predictions.scores for name, each in judged.items()})
        return result(self, judged)

    monkeypatch.setattr(probe_training.ProbeSetup, "result", noting)
    probed(cli, labeled, "out")
    np.testing.assert_array_equal(seen["model"], seen["random"])
    assert seen["model"].std() > 0


def test_the_weights_are_a_classifier(cli: Cli, labeled: str) -> None:
    probed(cli, labeled, "out")
    model, header = load_classifier("out")
    assert header.classifier is not None
    assert header.classifier.outputs == ("blue", "green", "red")
    from PIL import Image

    for line in list(read_lines(Path("out/predictions.jsonl")))[::5]:
        picture = Image.open(line["id"])
        top = (picture.height - 20) / 2
        box = (0, top, 30, top + 20)
        small = picture.resize((24, 16), Image.Resampling.BICUBIC, box=box)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None, :, None] / 255
        with torch.inference_mode():
            scores = model(model.normalize(pixels)).softmax(-1)[0]
        assert scores.tolist() == pytest.approx(line["scores"], abs=1e-4)


def official(
    features: list[torch.Tensor], labels: list[torch.Tensor], rates: list[float]
) -> nn.Module:
    """MAE's head and LARS (main_linprobe.py:218-252, util/lars.py:23-47), written out."""
    head = nn.Sequential(nn.BatchNorm1d(32, affine=False, eps=1e-6), nn.Linear(32, 3))
    start = probe_training.Heads({"model": 32}, 3, seed=0).of["model"].linear  # type: ignore[union-attr]
    linear = head[1]
    linear.weight.data, linear.bias.data = start.weight.data.clone(), start.bias.data.clone()  # type: ignore[union-attr]
    momentum = {name: torch.zeros_like(p) for name, p in head.named_parameters()}
    head.train()
    for x, y, rate in zip(features, labels, rates, strict=True):
        head.zero_grad()
        nn.functional.cross_entropy(head(x), y).backward()
        for name, p in head.named_parameters():
            assert p.grad is not None
            step = p.grad
            if p.ndim > 1:
                step = step * 0.001 * p.detach().norm() / step.norm()
            momentum[name] = 0.9 * momentum[name] + step
            p.data -= rate * momentum[name]
    return head.eval()


def test_the_head_is_trained_as_the_official_code_does(cli: Cli, labeled: str) -> None:
    probed(cli, labeled, "out")
    recipe = resolve(load(labeled, PAPER), "probe")
    job = probe_training.LinearProbeJob(
        recipe, torch.device("cpu"), lambda _: None, source="scratch"
    )
    features, labels = [], []
    for step in range(6):
        keys = job.stream.keys(step)
        samples = [job.reader.read(key) for key in keys]
        pixels = torch.from_numpy(np.concatenate([s.views[0] for s in samples])) / 255
        model = job.setup.encoder
        with torch.no_grad():
            features.append(model.encode(model.normalize(pixels))[:, 0])
        labels.append(torch.tensor([s.label for s in samples]))
    peak = 10 * 12 / 256
    # Two steps of warm-up from 0, then half a cosine over the other four.
    rates = [0, peak / 2] + [peak * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)]
    assert [line["lr"] for line in read_lines(Path("out/metrics.jsonl")) if "lr" in line] == (
        pytest.approx(rates)
    )
    head = official(features, labels, rates)
    ours, _ = load_classifier("out")
    norm, linear = head[0], head[1]  # type: ignore[index]
    torch.testing.assert_close(ours.head.linear.weight, linear.weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.head.linear.bias, linear.bias, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        ours.head.batch_norm.running_mean, norm.running_mean, atol=1e-5, rtol=1e-4
    )


def test_crops_are_single_tries_and_flipped(labeled: str) -> None:
    recipe = resolve(load(labeled, PAPER), "probe")
    job = probe_training.LinearProbeJob(
        recipe, torch.device("cpu"), lambda _: None, source="scratch"
    )
    assert recipe.probe is not None
    assert (recipe.probe.augment.name, recipe.probe.augment.flip) == ("single-try-crop", 0.5)
    source = Images(Images.Options(path=Path("pictures/train"))).open(0)
    plans = [job.reader.plans(source, Key(epoch, 0))[0] for epoch in range(20)]
    assert len({plan.box for plan in plans}) > 15
    assert {plan.flip for plan in plans} == {True, False}


def test_a_killed_probe_goes_on_where_it_was(cli: Cli, labeled: str) -> None:
    import os
    import signal

    probed(cli, labeled, "whole")
    update = probe_training.ProbeStep.loss
    calls = []

    def interrupting(self: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_training.ProbeStep, "loss", interrupting)
        stopped = cli("probe", labeled, *PAPER, *SCRATCH, "-q", "--out", "cut")
    assert stopped.code == 75
    resumed = cli("probe", labeled, *PAPER, "-q", "--out", "cut", "--resume")
    assert resumed.code == 0, resumed.err
    assert losses("cut") == losses("whole")
    assert same_weights("cut", "whole")
    whole, cut = (
        {key: value for key, value in result_of(out).items() if key not in ("seconds", "weights")}
        for out in ("whole", "cut")
    )
    assert whole == cut
    other = cli("probe", labeled, *PAPER, "probe.pool=mean", "--out", "cut", "--resume")
    assert other.code == 2


def trained_head(cli: Cli, labeled: str, out: str, *words: str) -> dict[str, torch.Tensor]:
    result = cli("probe", labeled, *words, *SCRATCH, "-q", "--out", out)
    assert result.code == 0, result.err
    found = load_classifier(out)[0].state_dict()
    return {name: value for name, value in found.items() if name.startswith("head.")}


@pytest.mark.parametrize(
    ("words", "updates", "batch"),
    [
        # 36 pictures; what is left of an epoch is dropped.
        (("probe.epochs=90",), 1, 64),
        (("probe.samples=1000", "probe.batch.global=32"), 31, 16),
        (("probe.epochs=20", "probe.batch.global=24"), 20, 8),
    ],
)
def test_too_few_updates_are_refused_with_what_to_set(
    cli: Cli, labeled: str, words: tuple[str, ...], updates: int, batch: int
) -> None:
    assert len(list(Path("pictures/train").rglob("*.png"))) == 36
    paper = ("probe", labeled, "probe={protocol: paper}", *SCRATCH, "--dry-run")
    refused = cli(*paper, *words)
    assert refused.code == 2
    assert f"would make {updates} update" in refused.err
    assert "try: probe.protocol=cached, which is exact for small sets" in refused.err
    assert f"or probe.batch.global={batch}\n" in refused.err
    better = [word for word in words if "batch" not in word] + [f"probe.batch.global={batch}"]
    assert cli(*paper, *better).code == 0
    assert cli(*paper, *better, f"probe.batch.global={2 * batch}").code == 2


def test_what_would_do_nothing_is_refused(cli: Cli, labeled: str) -> None:
    for words in ("probe.compile=true", "probe.activation_checkpointing=true", "probe.layer=1"):
        assert cli("probe", labeled, *PAPER, words, *SCRATCH).code == 2


def test_the_default_protocol_fits_any_set(labeled: str) -> None:
    recipe = resolve(load(labeled, ["probe={}"]), "probe")
    assert recipe.probe is not None
    assert (recipe.probe.kind, recipe.probe.protocol) == ("linear", "cached")


def test_the_papers_defaults_are_the_papers(labeled: str) -> None:
    recipe = resolve(load(labeled, ["probe={protocol: paper}"]), "probe")
    probe = recipe.probe
    assert probe is not None
    assert (probe.with_budget().epochs, probe.warmup.epochs) == (90, 10)
    assert probe.batch.global_ == 16384
    assert peak_lr(probe.optimizer, 16384) == pytest.approx(6.4)
    other = resolve(load(labeled, ["probe={steps: 3}"]), "probe").probe
    assert other is not None
    assert (other.with_budget().epochs, other.with_budget().steps) == (None, 3)


def test_a_dry_run_of_it(cli: Cli, labeled: str) -> None:
    result = cli("probe", labeled, *PAPER, *SCRATCH, "--dry-run", "--json", "-q")
    assert result.code == 0, result.err
    costs = json.loads(result.out)
    assert (costs["verb"], costs["steps"], costs["classes"]) == ("probe", 6, 3)
