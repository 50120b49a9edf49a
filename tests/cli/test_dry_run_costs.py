"""What a run costs, known before: without its data, for other devices, and what to set to fit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from maekit.engine.peak import PeakMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]


def cost(cli: Cli, recipe: str, *words: str) -> dict[str, Any]:
    done = cli("pretrain", recipe, "--dry-run", "--json", "-q", "data.train.path=nowhere", *words)
    assert done.code == 0, done.err
    assert "are files of data.train" not in done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_without_the_data(cli: Cli, small: str) -> None:
    missing = cli("pretrain", small, "--dry-run", "data.train.path=nowhere")
    assert (missing.code, "or --samples N" in missing.err) == (6, True)
    words = ("~pretrain.steps", "pretrain.epochs=3")
    found = cost(cli, small, *words, "--samples", "80000")
    assert found["steps"] == 3 * 80000 // 8
    refused = cli("pretrain", small, "--samples", "9")
    assert (refused.code, "--dry-run" in refused.err) == (2, True)


def test_the_program_itself_is_counted_where_it_shares_the_memory(cli: Cli, small: str) -> None:
    """In a first hour the libraries are most of what the system shows of a run."""
    here = cost(cli, small, "--samples", "9000")
    assert here["program_bytes"] > 100e6  # torch alone
    elsewhere = cost(cli, small, "--samples", "9000", "--device-memory", "8")
    assert elsewhere["program_bytes"] == 0
    shown = cli("pretrain", small, "--dry-run", "--samples", "9000").out
    assert "of the program itself" in " ".join(shown.split())


def test_a_logger_that_is_not_installed_is_said(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maekit.engine.loggers.find_spec", lambda _: None)
    for words in (("pretrain", small), ("ablate", "ablations/mae_mask_sampling_tiny")):
        refused = cli(*words, "--dry-run", "log=[wandb]")
        assert (refused.code, "needs the package wandb" in refused.err) == (2, True)


def test_for_devices_and_what_to_set(cli: Cli, small: str) -> None:
    words = ("--samples", "9000", "pretrain.batch.global=512")
    one = cost(cli, small, *words, "--device-memory", "100")
    assert (one["fits"], one["advice"], one["devices"]) == (True, None, 1)
    four = cost(cli, small, *words, "--device-memory", "100", "--devices", "4")
    assert four["devices"] == 4
    assert four["memory_bytes"] < one["memory_bytes"]
    least = cost(cli, small, *words, "pretrain.batch.accumulation=256")["memory_bytes"]
    between = (least + one["memory_bytes"]) / 2 / 1e9
    tight = cost(cli, small, *words, "--device-memory", f"{between}")
    assert tight["fits"] is False
    key, _, value = tight["advice"].partition("=")
    assert key == "pretrain.batch.accumulation"
    assert int(value) > 1
    set_so = cost(cli, small, *words, tight["advice"], "--device-memory", f"{between}")
    assert set_so["fits"] is True
    assert "does not fit: set pretrain.batch.accumulation=" in cli(
        "pretrain", small, "--dry-run", *words, "--device-memory", f"{between}"
    ).out.replace("\n", " ")


def test_shared_out_parameters(cli: Cli, small: str) -> None:
    """Of N devices each has an N-th of weights, moments and gradients, and gathers some of it."""
    words = ("--samples", "9000", "model.backbone.width=256", "model.backbone.depth=6")
    words = (*words, "model.backbone.heads=2", "pretrain.batch.global=16")
    words = (*words, "--device-memory", "100", "--devices")
    fsdp = "pretrain.sharding.name=fsdp"
    whole, alone = cost(cli, small, *words, "4"), cost(cli, small, *words, "1", fsdp)
    four, sixteen = (cost(cli, small, *words, number, fsdp) for number in ("4", "16"))
    kept = 4 * 4 * whole["parameters"]  # weights, gradients, two moments
    assert alone["memory_bytes"] > kept
    for found, number in ((four, 4), (sixteen, 16)):
        gathered = found["memory_bytes"] - (whole["memory_bytes"] - kept * (1 - 1 / number))
        assert 0.05 * kept < gathered < 0.3 * kept
    tight = cost(cli, small, *words[:-2], "0.001", "--devices", "4")
    assert "pretrain.sharding.name=fsdp" in tight["advice"]


@pytest.mark.parametrize("verb", ["finetune", "tokenizer", "probe"])
def test_every_training_verb_plans_for_devices(cli: Cli, small: str, verb: str) -> None:
    sections = {
        "finetune": "{steps: 4, batch: {global: 8}, head: {classes: 2}}",
        "tokenizer": "{steps: 4, batch: {global: 8}, optimizer: {base_lr: 0.1}, dvae: "
        "{vocabulary: 8, width: 4, init_width: 4, groups: 2, blocks: 1}}",
        "probe": "{steps: 60, protocol: paper, batch: {global: 8}}",
    }
    source = () if verb == "tokenizer" else ("--from", "scratch")
    words = (verb, small, "--dry-run", "--samples", "40", "--devices", "4", *source)
    done = cli(*words, f"{verb}={sections[verb]}", "data.val.name=images", "data.val.labels=auto")
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "2 per device x 1 accumulation x 4 device(s) = 8" in text
    assert "per device" in text
    assert "on 4 of this cpu" in text


def test_peaks_are_counted_as_tensors_come_and_go() -> None:
    with PeakMemory() as memory:
        a = torch.zeros(1000)  # 4,000 bytes
        b = a + 1
        del a
        c = b.view(10, 100) * 2  # a view is no memory
        del b
    assert (memory.peak, memory.live) == (8000, 4000)
    assert c.shape == (10, 100)


@pytest.mark.parametrize("size", [2, 8])
def test_peaks_count_what_autograd_keeps(size: int) -> None:
    layer = torch.nn.Linear(64, 64, bias=False)
    x = torch.zeros(size, 64)
    with PeakMemory() as memory:
        layer(x).relu().sum().backward()
    assert memory.peak >= 64 * 64 * 4 + size * 64 * 4  # the gradient, and what relu keeps
