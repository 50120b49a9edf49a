"""The linear probe by SGD (VideoMAE's table 11): against plain arithmetic, every key, videos."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from test_probe_paper import PAPER, SCRATCH, trained_head
from torch import nn

from maekit.engine.run_folder import read_lines
from maekit.evaluate import probe_training
from maekit.evaluate.classifier import load_classifier
from maekit.recipe.load import load
from maekit.registry import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

BUDGET = [word for word in PAPER if "optimizer" not in word]
SGD = [*BUDGET, "probe.optimizer={name: sgd, base_lr: 4}"]


def by_hand(
    features: list[torch.Tensor], labels: list[torch.Tensor], rates: list[float], decay: float
) -> nn.Sequential:
    """Train the same head as LARS does, by momentum SGD, written out."""
    head = nn.Sequential(nn.BatchNorm1d(32, affine=False, eps=1e-6), nn.Linear(32, 3))
    start = probe_training.Heads({"model": 32}, 3, seed=0).of["model"].linear  # type: ignore[union-attr]
    head[1].load_state_dict(start.state_dict())  # type: ignore[union-attr]
    weight, bias = head[1].weight, head[1].bias
    moments = [torch.zeros_like(weight), torch.zeros_like(bias)]
    head.train()
    for x, y, rate in zip(features, labels, rates, strict=True):
        head.zero_grad()
        nn.functional.cross_entropy(head(x), y).backward()
        assert weight.grad is not None
        assert bias.grad is not None
        moments[0] = 0.9 * moments[0] + weight.grad + decay * weight.detach()
        moments[1] = 0.9 * moments[1] + bias.grad
        weight.data -= rate * moments[0]
        bias.data -= rate * moments[1]
    return head.eval()


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_the_head_is_trained_as_by_hand(cli: Cli, labeled: str, decay: float) -> None:
    words = [*SGD, f"probe.optimizer.weight_decay={decay}"]
    result = cli("probe", labeled, *words, *SCRATCH, "--json", "-q", "--out", "out")
    assert result.code == 0, result.err
    options = json.loads(result.out)["settings"]["optimizer"]
    assert (options["name"], options["momentum"], options["weight_decay"]) == ("sgd", 0.9, decay)
    assert "trust" not in options
    recipe = resolve(load(labeled, words), "probe")
    job = probe_training.LinearProbeJob(
        recipe, torch.device("cpu"), lambda _: None, source="scratch"
    )
    features, labels = [], []
    for step in range(6):
        samples = [job.reader.read(key) for key in job.stream.keys(step)]
        pixels = torch.from_numpy(np.concatenate([s.views[0] for s in samples])) / 255
        model = job.setup.encoder
        with torch.no_grad():
            features.append(model.encode(model.normalize(pixels))[:, 0])
        labels.append(torch.tensor([s.label for s in samples]))
    peak = 4 * 12 / 256
    rates = [0, peak / 2] + [peak * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)]
    assert [line["lr"] for line in read_lines(Path("out/metrics.jsonl")) if "lr" in line] == (
        pytest.approx(rates)
    )
    head = by_hand(features, labels, rates, decay)
    ours, _ = load_classifier("out")
    torch.testing.assert_close(ours.head.linear.weight, head[1].weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.head.linear.bias, head[1].bias, atol=1e-5, rtol=1e-4)
    still = probe_training.Heads({"model": 32}, 3, seed=0).of["model"].linear  # type: ignore[union-attr]
    assert (ours.head.linear.weight - still.weight).abs().max() > 0.01  # it has learned


def test_lars_is_what_is_meant_without_a_name(labeled: str) -> None:
    probe = resolve(load(labeled, PAPER), "probe").probe
    assert probe is not None
    assert (probe.optimizer.name, probe.optimizer.base_lr) == ("lars", 10)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "probe.optimizer={name: sgd, trust: 0.1}",
            "probe.optimizer.trust: unknown key try: known here: base_lr, min_lr, min_lr_scaled",
        ),
        ("probe.optimizer.name=adamw", "unknown name 'adamw' try: known: lars, sgd"),
        ("probe.optimizer={name: sgd, momentum: 1}", "expected less than 1"),
        ("probe.optimizer.name=null", "probe.optimizer.name: expected 'lars'"),
        ("probe.optimizer=sgd", "try: probe.optimizer.name=sgd"),
    ],
)
def test_what_makes_no_sense_is_refused(cli: Cli, labeled: str, word: str, told: str) -> None:
    refused = cli("probe", labeled, word, *SCRATCH)
    assert refused.code == 2
    assert told in " ".join(refused.err.split())


def test_a_killed_probe_by_sgd_goes_on_where_it_was(
    cli: Cli, labeled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained_head(cli, labeled, "whole", *SGD)
    loss, calls = probe_training.ProbeStep.loss, []

    def interrupting(self: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGTERM)
        return loss(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(probe_training.ProbeStep, "loss", interrupting)
        assert cli("probe", labeled, *SGD, *SCRATCH, "-q", "--out", "cut").code == 75
    resumed = cli("probe", labeled, *SGD, "-q", "--out", "cut", "--resume")
    assert resumed.code == 0, resumed.err
    head = load_classifier("cut")[0].state_dict()
    assert all(torch.equal(value, head[name]) for name, value in whole.items())
