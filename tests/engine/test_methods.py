"""What methods need of the core: teachers that follow the encoder, layers, exact queries."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_parts import Site
from pydantic import Field
from small_recipes import IMAGES, Recipe, draw_smooth, laid_over, sets
from torch import Tensor, nn

import maekit
from maekit.contracts import (
    Backbone,
    Decoder,
    Encoded,
    Grid,
    Masker,
    PartContext,
    PartOptions,
    Target,
)
from maekit.data.masks import MaskDraw
from maekit.engine.events import Event, StepDone
from maekit.engine.step import recompute
from maekit.errors import PartError
from maekit.recipe.schema import BackboneSpec
from maekit.registry import build, spec_of
from maekit.tokens import Mask, gather
from maekit.weights.safetensors_io import read_tensors


class Latent(Target):
    """Features of a moving average of the encoder (data2vec)."""

    class Options(PartOptions):
        decay: float = Field(0.5, ge=0, lt=1)

    seen: list[tuple[int, int]] = []  # noqa: RUF012 - of all runs of a test

    def __init__(self, options: Options, context: PartContext) -> None:
        self.decay = options.decay
        self.out_dim = context.width
        self.prefix = context.prefix_tokens
        self.kept: Mapping[str, Tensor] = {}
        self.teacher: Backbone | None = None

    def attach(self, backbone: Backbone) -> None:
        self.teacher = copy.deepcopy(backbone).requires_grad_(False).eval()
        if self.kept:
            self.teacher.load_state_dict(dict(self.kept))
        self.student = [backbone]

    def after_update(self, step: int, steps: int) -> None:
        Latent.seen.append((step, steps))
        assert not torch.is_grad_enabled()
        student = self.student[0].state_dict()
        for name, mean in self.teacher.state_dict().items():
            mean.lerp_(student[name], 1 - self.decay)

    def state(self) -> Mapping[str, Tensor]:
        return {} if self.teacher is None else self.teacher.state_dict()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        assert self.teacher is None  # it comes before the encoder does
        self.kept = tensors

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        whole = Mask.nothing_hidden(len(views[0]), mask.tokens)
        tokens = self.teacher(views[0] - 0.5, whole).tokens[:, self.prefix :]
        return gather(tokens, mask.queries)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred.float() - target).square().mean(dim=-1)


class Mixing(Decoder, nn.Module):
    """A weighted mean of all of the encoder's layers (CrossMAE), read at each query."""

    class Options(PartOptions):
        layers: tuple[int, ...] | None = None

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        self.layers = options.layers or range(len(context.layer_widths))
        assert set(context.layer_widths) == {context.width}
        self.share = nn.Parameter(torch.ones(len(self.layers)))
        self.head = nn.Linear(context.width, context.out_dim)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        assert len(encoded.layers) == len(self.layers)
        mixed = (torch.stack(encoded.layers) * self.share[:, None, None, None]).sum(dim=0)
        return self.head(mixed.mean(dim=1, keepdim=True)).expand(-1, mask.queries.shape[1], -1)


class Among(Masker):
    """A share of what is hidden, exactly: what CrossMAE predicts."""

    needs_hidden = True

    class Options(PartOptions):
        share: float = 0.25

    def __init__(self, options: Options) -> None:
        self.share = options.share

    def __call__(self, grid: Grid, rng: np.random.Generator, *, hidden: np.ndarray) -> np.ndarray:
        assert hidden.shape == tuple(grid)
        there = np.flatnonzero(hidden)
        chosen = np.zeros(grid.tokens, np.bool_)
        chosen[rng.permutation(there)[: int(self.share * len(there))]] = True
        return chosen.reshape(grid)


class Spoiling(Among):
    """Writes into what it is given."""

    def __call__(self, grid: Grid, rng: np.random.Generator, *, hidden: np.ndarray) -> np.ndarray:
        hidden[:] = False
        return super().__call__(grid, rng, hidden=hidden)


PARTS = {
    "maskers": {"among": "test_methods:Among"},
    "targets": {"latent": "test_methods:Latent"},
    "decoders": {"mixing": "test_methods:Mixing"},
}


@pytest.fixture
def folder(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    site.install("maekit-methods", PARTS)
    monkeypatch.chdir(tmp_path)
    draw_smooth(Path("pictures"), 8, 0)
    return tmp_path


def recipe(**pretrain: Any) -> Recipe:
    small = {"name": "methods", "pretrain": {"batch": {"global": 4}, "steps": 4} | pretrain}
    return laid_over(IMAGES, sets("pictures", "pictures"), small)


def test_a_teacher_follows_the_encoder_and_is_resumed_to_the_same_end(folder: Path) -> None:
    ours = recipe(
        target={"name": "latent"},
        checkpoint={"steps": 1},
        activation_checkpointing=True,
        optimizer={"name": "adamw", "base_lr": 1.0},
        precision="fp32",
    )
    Latent.seen.clear()
    maekit.run(ours, out="straight")
    assert Latent.seen == [(1, 4), (2, 4), (3, 4), (4, 4)]

    def interrupt(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maekit.run(ours, out="resumed", on_event=interrupt)
    maekit.run(ours, out="resumed", resume=True)
    straight, resumed = (
        read_tensors(Path(run, "weights.safetensors")) for run in ("straight", "resumed")
    )
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    weight = "patch_embed.weight"
    assert not torch.equal(straight[f"target.{weight}"], straight[f"backbone.{weight}"])
    assert maekit.load("straight").target is not None
    # A longer run tells the target of its own budget, and says that it does.
    said: list[str] = []
    Latent.seen.clear()
    maekit.run(ours, out="straight", resume=True, extend="pretrain.steps=5",
               on_event=lambda event: said.append(getattr(event, "text", "")))  # fmt: skip
    assert Latent.seen == [(5, 5)]
    assert sum("latent follows updates by a schedule of its own, of 5" in each
               for each in said) == 1  # fmt: skip


def test_a_copied_encoder_recomputes_its_own_blocks() -> None:
    options = {"size": "tiny", "width": 8, "depth": 2, "heads": 2, "patch": 4}
    spec = spec_of(BackboneSpec, {"name": "image-vit"} | options)
    backbone = build(spec, PartContext((1, 8, 8), 3, (0.0,) * 3, (1.0,) * 3))
    recompute(backbone.blocks())
    copied = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in backbone.blocks()[0].parameters():
            parameter.zero_()
    pixels, mask = torch.ones(1, 3, 1, 8, 8), Mask.nothing_hidden(1, 4)
    assert not torch.equal(copied(pixels, mask).tokens, backbone(pixels, mask).tokens)


def test_a_decoder_gets_the_layers_that_it_asks_for(folder: Path) -> None:
    ours = laid_over(
        recipe(target={"name": "pixel"}), {"model": {"decoder": {"name": "mixing"}}},
        without=("model.decoder.width", "model.decoder.depth", "model.decoder.heads"),
    )  # fmt: skip
    maekit.run(ours, out="mixed")
    share = read_tensors(Path("mixed/weights.safetensors"))["decoder.share"]
    assert (share != 1).all()  # both layers are learned from
    for layers in ([2], [1, 0], [0, 0]):
        with pytest.raises(PartError, match=r"asks for the layers .* of an encoder of 2 blocks"):
            maekit.run(laid_over(ours, {"model": {"decoder": {"layers": layers}}}))


def test_a_linear_decoder_reads_off_an_encoder_that_returns_all(folder: Path) -> None:
    ours = laid_over(
        recipe(target={"name": "pixel"}), {"model": {"decoder": {"name": "linear"}}},
        without=("model.decoder.width", "model.decoder.depth", "model.decoder.heads"),
    )  # fmt: skip
    with pytest.raises(PartError, match="mask_token: true"):
        maekit.run(ours)
    maekit.run(laid_over(ours, {"model": {"backbone": {"mask_token": True}}}), out="simmim")
    model = maekit.load("simmim")
    pixels = torch.rand(1, 3, 1, 16, 24)
    hidden = torch.tensor([[True, False, False, True, False, False]])
    output = model(pixels, hidden)
    expected = model.decoder.head(output.encoded[:, [1, 4]])  # behind the class token
    torch.testing.assert_close(output.pred, expected)


def test_a_share_of_what_is_hidden_is_predicted_exactly() -> None:
    """Of 14 x 14 with 0.75 hidden, 36 of 147 in every sample; a mask of its own meets about 37."""
    grid, clip = Grid(1, 14, 14), (1, 28, 28, 3)
    first = MaskDraw(build_masker("random", ratio=0.75), grid, (1, 1, 1), clip)
    second = MaskDraw(Among(Among.Options()), grid, (1, 1, 1), clip, after=first)
    assert (first.count, second.count) == (147, 36)
    black = np.zeros(clip, np.uint8)
    for seed in range(20):
        hidden = first.draw(np.random.default_rng(seed), black)
        chosen = second.draw(np.random.default_rng(seed), black, hidden)
        assert chosen.sum() == 36
        assert not (chosen & ~hidden).any()


def test_units_of_tokens_are_shared_by_both_maskers() -> None:
    grid, unit, clip = Grid(2, 4, 6), (1, 2, 2), (4, 32, 48, 3)
    first = MaskDraw(build_masker("random", ratio=0.5), grid, unit, clip)
    second = MaskDraw(Among(Among.Options(share=0.5)), grid, unit, clip, after=first)
    hidden = first.draw(np.random.default_rng(1), np.zeros(clip, np.uint8))
    chosen = second.draw(np.random.default_rng(2), np.zeros(clip, np.uint8), hidden)
    assert chosen.sum() == second.count == 12
    assert not (chosen & ~hidden).any()


def test_a_masker_of_queries_hides_nothing_and_writes_nothing(folder: Path) -> None:
    with pytest.raises(PartError, match=r"name it in pretrain\.decoder_masker"):
        maekit.run(recipe(), overrides=["pretrain.masker.name=among"])
    grid, clip = Grid(1, 4, 4), (1, 8, 8, 3)
    first = MaskDraw(build_masker("random", ratio=0.5), grid, (1, 1, 1), clip)
    with pytest.raises(PartError, match="read-only"):
        MaskDraw(Spoiling(Among.Options()), grid, (1, 1, 1), clip, after=first)
    ours = recipe(decoder_masker={"name": "among", "share": 0.34}, validate={"every": 4})
    result = maekit.run(ours, out="partial")
    assert result["exit"] == 0


def build_masker(name: str, **options: Any) -> Masker:
    from maekit.recipe.schema import MaskerSpec

    masker: Masker = build(spec_of(MaskerSpec, {"name": name} | options))
    return masker
