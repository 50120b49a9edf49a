"""A training step against transformers' ViTMAE and VideoMAE in a plain loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.sides import Group
from maekit.data.batch import Batch
from maekit.data.order import Key
from maekit.engine.bench import count_flops, product_rate
from maekit.engine.build import build_model, header_of
from maekit.engine.loop import TrainState, update
from maekit.engine.optim import make_optimizer
from maekit.engine.peak import PeakMemory
from maekit.engine.precision import Precision
from maekit.engine.schedule import Schedule
from maekit.engine.step import PretrainStep
from maekit.layers import Statistics
from maekit.recipe.load import load
from maekit.registry import resolve

BLANK = Statistics((0.5,) * 3, (0.25,) * 3)
MODELS = {"images": "mae_in1k_vit_b", "videos": "videomae_k400"}


class Ours:
    """maekit's own step, as its training makes it."""

    def __init__(
        self,
        recipe: str,
        precision: str,
        batch: int,
        words: Sequence[str] = (),
        *,
        compiled: bool = False,
    ) -> None:
        resolved = resolve(load(recipe, tuple(words)), "pretrain")
        pretrain: Any = resolved.pretrain
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = build_model(header_of(resolved, BLANK)).to(self.device).train()
        self.precision = Precision.of(precision, self.device)
        self.step = PretrainStep(self.model, self.precision, compiled=compiled)
        optimizer = make_optimizer(self.model, pretrain.optimizer)
        schedule = Schedule(steps=10**6, warmup=0, peak=1e-5, floor=0)
        self.state = TrainState(self.model, optimizer, schedule, batch, 1.0)
        self.batch = noise(self.model, pretrain.masker, batch)

    def __call__(self, _: int) -> None:
        update(self.state, self.step, [self.batch])
        settle(self.device)

    def peak(self) -> int:
        with PeakMemory() as memory:
            self.step.loss(self.step.weigh(self.batch)).backward()
        return memory.peak


def noise(model: Any, masker: Any, batch: int) -> Batch:
    """Make a batch of noise, masked as a recipe says."""
    from maekit import registry

    rng = np.random.default_rng(0)
    shape = (batch, 3, *model.clip)
    draw = registry.build(masker)
    hidden = np.stack([draw(model.grid, rng).reshape(-1) for _ in range(batch)])
    pixels = rng.integers(0, 256, shape, dtype=np.uint8)
    keys = tuple(Key(0, index) for index in range(batch))
    return Batch((pixels,), hidden, None, np.ones(batch, np.float32), (None,) * batch, keys, ())


class Theirs:
    """A plain loop over a model of transformers, whose masks are drawn beforehand."""

    def __init__(self, ours: Ours, build: Callable[[], Any], arguments: Callable[..., Any]) -> None:
        self.device = ours.device
        self.model = build().to(self.device).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=1e-5, betas=(0.9, 0.95), weight_decay=0.05
        )
        self.arguments = lambda: arguments(ours.batch, self.device)
        self.name = ours.precision.name

    def _autocast(self) -> AbstractContextManager[object]:
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def loss(self) -> torch.Tensor:
        with self._autocast():
            found: torch.Tensor = self.model(**self.arguments()).loss
        return found

    def __call__(self, _: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss().backward()
        self.optimizer.step()
        settle(self.device)

    def peak(self) -> int:
        self.optimizer.zero_grad(set_to_none=True)
        with PeakMemory() as memory:
            self.loss().backward()
        return memory.peak


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _their_images(**sizes: int) -> Any:
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    return ViTMAEForPreTraining(ViTMAEConfig(norm_pix_loss=True, mask_ratio=0.75, **sizes))


def _their_videos(**sizes: int) -> Any:
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    return VideoMAEForPreTraining(VideoMAEConfig(norm_pix_loss=True, **sizes))


def _image_arguments(batch: Batch, device: torch.device) -> dict[str, Any]:
    pixels = torch.from_numpy(batch.views[0][:, :, 0]).to(device) / 255
    return {"pixel_values": (pixels - 0.5) / 0.25}


def _video_arguments(batch: Batch, device: torch.device) -> dict[str, Any]:
    pixels = torch.from_numpy(batch.views[0]).to(device).transpose(1, 2) / 255
    hidden = torch.from_numpy(batch.hidden).to(device)
    return {"pixel_values": (pixels - 0.5) / 0.25, "bool_masked_pos": hidden}


KINDS = {
    "images": ("ViT-B/16 at 224, 0.75 hidden", _their_images, _image_arguments),
    "videos": ("VideoMAE-B, 16 frames, 0.9 hidden", _their_videos, _video_arguments),
}


def groups(
    *, batches: dict[str, int], words: Sequence[str] = (), sizes: Mapping[str, int] | None = None
) -> Iterator[Group]:
    """Yield a group for each model and precision.

    Args:
        batches: samples of a step, by kind; kinds that are not named are left out.
        words: laid over our recipe, as on a command line.
        sizes: options of transformers' configuration that say the same.
    """
    for kind, batch in batches.items():
        title, build, arguments = KINDS[kind]
        for precision in ("fp32", "bf16"):
            ours = Ours(MODELS[kind], precision, batch, words)
            theirs = Theirs(ours, partial(build, **(sizes or {})), arguments)
            title = f"{title}, {' '.join(words)}" if words else title
            products = [product_rate(ours.device, ours.precision)]
            flops = count_flops(ours.step, ours.batch)
            group = Group(
                f"{title}, batch {batch}, {precision}, {ours.device.type}",
                "ms a step",
                {"maekit": ours, "transformers": theirs},
                clock=time.perf_counter,
                facts={
                    "peak bytes of a forward and backward pass": {
                        "maekit": ours.peak(),
                        "transformers": theirs.peak(),
                    },
                    "flops of a step": flops,
                },
            )
            yield group
            products += [product_rate(ours.device, ours.precision) for _ in range(4)]
            group.facts["best FLOP/s of five matrix products"] = max(products)
