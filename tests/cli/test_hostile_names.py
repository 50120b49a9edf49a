"""Options and attributes may have any name: nothing is done to them for how they are called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pytest
import torch
from own_parts import Site
from small_recipes import IMAGES, draw_sides, sets, write_recipe
from small_runs import same_weights
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
)
from maekit.datasets.images import Images
from maekit.engine.events import Event, StepDone
from maekit.errors import WeightsError
from maekit.layers import Block, PatchEmbedding, Positions
from maekit.targets.pixel import Pixel
from maekit.tokens import Mask, gather, patchify

if TYPE_CHECKING:
    from conftest import Result

    Cli = Callable[..., Result]


class Hostile(PartOptions):
    """Names that something in maekit might take for its own."""

    load_time: ClassVar[frozenset[str]] = frozenset({"drop_path_rate"})

    shape: int = 16  # a width
    init: Literal["few", "many"] = "few"  # of blocks
    positions: bool = True
    positions_grid: int = 3
    patch: str = "whole"
    size: float = 1.0
    norm: Literal["layer", "none"] = "layer"
    inflate: int = 2
    drop_path_rate: float = 0.0
    weights: str = "none"
    sha256: str = "of nothing"
    grid: int = 0
    width: int = 5


class Encoder(Backbone, nn.Module):
    """An encoder whose attributes are called as nothing of it is."""

    class Options(Hostile):
        pass

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        self.width, self.patch = options.shape, (1, 8, 8)
        self.embedding = PatchEmbedding(context.channels, self.width, self.patch)
        self.positions = Positions("sincos-1d", self.grid(context.shape), self.width)
        blocks = {"few": 1, "many": 2}[options.init]
        self.size = nn.ModuleList(Block(self.width, 2) for _ in range(blocks))
        self.norm = nn.LayerNorm(self.width) if options.norm == "layer" else nn.Identity()
        self.shape, self.init, self.weights = options.shape, options.init, options.weights
        self.sha256, self.drop_path_rate = options.sha256, options.drop_path_rate
        self.options, self.kind, self.name = options, "kind", "name"

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        return Grid(1, shape[1] // 8, shape[2] // 8)

    def forward(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        x = self.embedding(gather(patchify(pixels, self.patch), mask.visible))
        x = x + self.positions()[mask.visible]
        taken = []
        for index, block in enumerate(self.size):
            x, _ = block(x)
            if index in layers:
                taken.append(x)
        return Encoded(self.norm(x), tuple(taken))

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.size)

    def layer_of(self, parameter: str) -> int:
        if parameter.startswith("size."):
            return int(parameter.split(".")[1]) + 1
        return len(self.size) + 1 if parameter.startswith("norm.") else 0


class Head(Decoder, nn.Module):
    """A decoder likewise."""

    class Options(Hostile):
        pass

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        self.positions = Positions("sincos-2d", context.grid, context.width)
        self.inflate = nn.Linear(context.width, context.out_dim)
        self.shape = options.shape

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        mean = encoded.tokens.mean(dim=1, keepdim=True)
        return self.inflate(mean + self.positions()[mask.queries])


class Truth(Pixel):
    """A target likewise."""

    class Options(Hostile, Pixel.Options):
        pass


class Half(Masker):
    """A masker likewise."""

    class Options(Hostile):
        pass

    def __init__(self, options: Options) -> None:
        self.count_of = options.shape

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        return (rng.permutation(grid.tokens) < grid.tokens // 2).reshape(grid)


class Set(Images):
    """A data set likewise."""

    class Options(Hostile, Images.Options):
        pass


@pytest.fixture
def recipe(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    kinds = {"backbones": Encoder, "decoders": Head, "targets": Truth, "maskers": Half}
    parts = {kind: {"own": f"{__name__}:{each.__name__}"} for kind, each in kinds.items()}
    site.install("hostile", parts | {"datasets": {"own": f"{__name__}:Set"}})
    monkeypatch.chdir(tmp_path)
    draw_sides(Path("pictures"), 8, 0)
    return write_recipe(
        Path("hostile.yaml"),
        {key: IMAGES[key] for key in ("name", "data")},
        sets("pictures", "pictures"),
        {
            "data": {"train": {"name": "own"}, "val": {"name": "own"}},
            "model": {"backbone": {"name": "own"}, "decoder": {"name": "own"}},
            "pretrain": {
                "masker": {"name": "own"},
                "target": {"name": "own"},
                "steps": 2,
                "batch": {"global": 4},
                "checkpoint": {"steps": 1},
                "pictures": None,
            },
            "finetune": {"steps": 1, "batch": {"global": 4}},
        },
    )


def test_all_five_kinds_have_all_of_the_names() -> None:
    names = {
        "shape", "init", "positions", "patch", "size", "norm", "inflate", "drop_path_rate",
        "weights", "sha256",
    }  # fmt: skip
    for kind in (Half, Truth, Encoder, Head, Set):
        assert names <= kind.Options.model_fields.keys()


def test_hostile_names_train_resume_load_embed_and_reconstruct(cli: Cli, recipe: str) -> None:
    maekit.run(recipe, out="straight")

    def interrupt(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maekit.run(recipe, out="run", on_event=interrupt)
    assert maekit.run(recipe, out="run", resume=True)["exit"] == 0
    assert same_weights("straight", "run")
    wide = maekit.load("run", clip=(1, 24, 40))
    assert wide.encode(torch.rand(1, 3, 1, 24, 40)).shape == (1, 15, 16)
    assert cli("embed", "pictures", "--from", "run", "--out", "features.npz").code == 0
    assert cli("reconstruct", "pictures/l/000.png", "--from", "run", "--out", "seen").code == 0
    tuned = {"overrides": ["finetune.model={backbone: {drop_path_rate: 0.5}}"], "source": "run"}
    assert maekit.run(recipe, "finetune", out="tuned", **tuned)["exit"] == 0


def test_what_is_not_declared_is_structure_whatever_its_name(recipe: str) -> None:
    maekit.run(recipe, overrides=["pretrain.steps=1"], out="run")
    asked = {"init": "many", "patch": "half", "positions": "false", "size": "2.0"}
    for name, value in asked.items():
        said = rf"backbone\.{name}: .* in the weights, .* requested"
        words = [f"model.backbone.{name}={value}"]
        with pytest.raises(WeightsError, match=said):
            maekit.run(recipe, "finetune", overrides=words, source="run", out=name)
    words = ["pretrain.target.weights=other", "pretrain.steps=1"]
    with pytest.raises(WeightsError, match=r"target\.weights: 'none' in the weights, 'other'"):
        maekit.run(recipe, overrides=words, source="run", out="other")
