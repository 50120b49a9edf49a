"""``maekit replay``: what was not finite is met again, with its module and its samples."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from maekit.targets.pixel import NormPixel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import Result
    from torch import Tensor

    from maekit.tokens import Mask

    Cli = Callable[..., Result]


def ended(cli: Cli, small: str, *words: str) -> dict[str, Any]:
    """Let a run end with exit 4, and replay it."""
    failed = cli("pretrain", small, "pretrain.max_nonfinite=3", *words, "--out", "run")
    assert failed.code == 4, failed.err
    files = sorted(path for path in Path("run").rglob("*") if path.is_file())
    before = [path.read_bytes() for path in files]
    done = cli("replay", "run", "--json", "-q")
    assert done.code == 0, done.err
    assert [path.read_bytes() for path in files] == before  # it writes nothing
    found: dict[str, Any] = json.loads(done.out)
    return found


def test_weights_that_overflow_are_met_again(cli: Cli, small: str) -> None:
    words = ("pretrain.optimizer.base_lr=1e38", "pretrain.steps=60")
    found = ended(cli, small, *words)
    captured = json.loads(Path("run/nan_capture/batches.json").read_text())["steps"]
    assert [each["step"] - 1 for each in found["updates"]] == sorted(map(int, captured))
    for each in found["updates"]:
        assert each["finite"] is False
        assert each["samples"] is None  # all of them
        assert each["module"].startswith("backbone.")
    shown = cli("replay", "run/nan_capture", "--step", str(found["updates"][1]["step"]))
    assert "1 of 1 updates are not finite again" in shown.out
    refused = cli("replay", "run", "--step", "1000")
    assert (refused.code, "update 1000 is not among" in refused.err) == (2, True)


def test_the_samples_that_do_it_are_named(
    cli: Cli, small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target that is infinite for black pictures, of which most batches have some."""
    encode = NormPixel.encode

    def broken(self: NormPixel, views: Sequence[Tensor], mask: Mask) -> Tensor:
        black = views[0].flatten(1).amax(dim=1) == 0
        return encode(self, views, mask) + torch.where(black, math.inf, 0.0)[:, None, None]

    monkeypatch.setattr(NormPixel, "encode", broken)
    for number in range(0, 50, 3):
        Path(f"pictures/train/{number:03d}.png").unlink()
        Image.new("RGB", (40, 40)).save(f"pictures/train/black-{number}.png")
    found = ended(cli, small, "pretrain.steps=30", "data.workers=0")
    for each in found["updates"]:
        assert each["loss"] is None
        assert each["module"] is None  # the model itself is sound
        assert each["samples"]
        assert all("black" in name for name in each["samples"])


def test_a_run_without_a_capture_is_refused(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "pretrain.steps=1", "--out", "run", "-q").code == 0
    refused = cli("replay", "run")
    assert (refused.code, "no nan_capture/" in refused.err) == (6, True)
