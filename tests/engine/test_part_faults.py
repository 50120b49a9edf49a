"""What a part does wrong ends a pre-training with its name, and never with wrong weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_parts import Site
from small_recipes import IMAGES, draw_smooth, sets, write_recipe
from torch import Tensor, nn

import maekit
from maekit.backbones.image_vit import ImageViT
from maekit.contracts import (
    Backbone,
    Dataset,
    Encoded,
    Grid,
    Masker,
    PartContext,
    PartError,
    PartOptions,
    Source,
    SourceInfo,
    Target,
)
from maekit.decoders.vit import ViTDecoder
from maekit.tokens import Mask

PARTS: dict[str, dict[str, str]] = {}
CASES: dict[str, tuple[str, str]] = {}  # what is done, by name: the kind, and what is said of it


def planted(kind: str, said: str) -> Callable[[type], type]:
    """Declare a class as a part that has to be refused with these words."""

    def declare(part: type) -> type:
        PARTS.setdefault(kind, {})[part.__name__] = f"test_part_faults:{part.__name__}"
        CASES[part.__name__] = (kind, said)
        return part

    return declare


class Plain(Target):
    """Mean color of a token, correctly; each fault changes one thing."""

    class Options(PartOptions):
        pass

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        self.out_dim = 1

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return views[0].new_ones(*mask.queries.shape, 1)

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred.float() - target).square().mean(dim=-1)


@planted("targets", r"must return \[8, 3\] from loss \(batch, queries\), returned \[\]")
class ScalarLoss(Plain):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return (pred.float() - target).square().mean()


@planted("targets", r"must return a loss of float32, returned torch\.bfloat16")
class HalfLoss(Plain):
    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().loss(pred, target).bfloat16()


@planted("targets", r"must return \[8, 3, \.\.\.\] from encode \(batch, queries, \.\.\.\)")
class TruthOfAllTokens(Plain):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return views[0].new_ones(len(mask.queries), mask.tokens, 1)


@planted("targets", r"fails: KeyError: 'table'")
class Raising(Plain):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        return {}["table"]


@planted("targets", r": a patch of 8x8 does not divide into cells of 3")
class Refusing(Plain):
    def __init__(self, options: Plain.Options, context: PartContext) -> None:
        raise PartError("a patch of 8x8 does not divide into cells of 3", hint="cells of 2 or 4")


@planted("targets", "changes in place what it is given")
class Spoiling(Plain):
    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        views[0].mul_(0.5)
        return super().encode(views, mask)


@planted("targets", "parameters that would be trained and not be kept: scale")
class Learning(Plain, nn.Module):
    def __init__(self, options: Plain.Options, context: PartContext) -> None:
        super().__init__(options, context)
        self.scale = nn.Parameter(torch.ones(()))

    def loss(self, pred: Tensor, target: Tensor) -> Tensor:
        return super().loss(pred, target) * self.scale


@planted("targets", "does not load scale by load_state into its parameters")
class Forgetting(Learning):
    def state(self) -> Mapping[str, Tensor]:
        return {"scale": self.scale.detach() + 1}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        pass


@planted("targets", "cannot load_state what its state gave: KeyError: 'mean'")
class Unloadable(Plain):
    def state(self) -> Mapping[str, Tensor]:
        return {"average": torch.ones(3)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        tensors["mean"]


@planted("targets", r"encodes 1 values a token, and its out_dim is 3")
class Spreading(Plain):
    def __init__(self, options: Plain.Options, context: PartContext) -> None:
        self.out_dim = 3


@planted("targets", r"does not give back by state what load_state took: average")
class Amnesiac(Plain):
    average = 0.0

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        self.average = 5.0

    def state(self) -> Mapping[str, Tensor]:
        return {"average": torch.tensor(self.average)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        pass


@planted("targets", r"does not give back by state what load_state took: bias, weight")
class StartingOver(Plain):
    """Its teacher is a copy of the encoder again after every resume."""

    def attach(self, backbone: Backbone) -> None:
        self.teacher = copy.deepcopy(backbone.last_norm())

    def state(self) -> Mapping[str, Tensor]:
        return self.teacher.state_dict() if hasattr(self, "teacher") else {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        pass


@planted("targets", r"registers a tensor or a module as views, which hides it")
class Hiding(Plain, nn.Module):
    def __init__(self, options: Plain.Options, context: PartContext) -> None:
        super().__init__(options, context)
        self.views = nn.ModuleList()


@planted("decoders", r"registers a tensor or a module as layers, which hides it")
class HidingLayers(ViTDecoder):
    def __init__(self, options: ViTDecoder.Options, context: PartContext) -> None:
        super().__init__(options, context)
        self.layers = nn.ModuleList([nn.Linear(2, 2)])


@planted("backbones", r"registers a tensor or a module as layer_widths, which hides it")
class HidingWidths(ImageViT):
    def __init__(self, options: ImageViT.Options, context: PartContext) -> None:
        super().__init__(options, context)
        self.layer_widths = nn.Linear(2, 2)


@planted("targets", "returns digest from open, which its Options do not have")
class Pinning(Plain):
    def open(self) -> Mapping[str, object]:
        return {"digest": "0"}


@planted("targets", "does not set out_dim")
class Widthless(Plain):
    def __init__(self, options: Plain.Options, context: PartContext) -> None:
        pass


@planted("decoders", r"fails: RuntimeError: Tensor.item\(\) cannot be called on meta tensors")
class ReadingValues(ViTDecoder):
    def __init__(self, options: ViTDecoder.Options, context: PartContext) -> None:
        self.rates = [x.item() for x in torch.linspace(0, 0.1, 2)]
        super().__init__(options, context)


@planted(
    "decoders", r"must return \[8, 3, 192\] from forward \(batch, queries, the target's out_dim\)"
)
class AllTokens(ViTDecoder):
    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return self.head(self.norm(self.embed(encoded.tokens)))


@planted("decoders", "is not built the same from its options again")
class Drifting(ViTDecoder):
    built = 0

    def __init__(self, options: ViTDecoder.Options, context: PartContext) -> None:
        super().__init__(options, context)
        Drifting.built += 1
        self.extra = nn.Parameter(torch.zeros(Drifting.built))

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:
        return super().forward(encoded, mask, grid) + self.extra.sum()


@planted(
    "backbones", r"must return \[[18], 4, 32\] from forward \(batch, 1 prefix \+ 3 visible tokens"
)
class Prefixless(ImageViT):
    def forward(self, *given: Any, **more: Any) -> Encoded:
        return Encoded(super().forward(*given, **more).tokens[:, 1:])


@planted("backbones", r"fails: ZeroDivisionError")
class Dividing(ImageViT):
    def grid(self, shape: tuple[int, int, int]) -> Grid:
        return (
            Grid(1, shape[1] // 8, shape[2] // (8 if shape[2] % 5 else 0)) if self.ready else None
        )

    ready = property(lambda self: 1 // 0)


@planted("maskers", "must set 3 in every mask, set")
class Unsteady(Masker):
    class Options(PartOptions):
        pass

    def __init__(self, options: Options) -> None:
        pass

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        mask = np.zeros(grid.tokens, np.bool_)
        mask[: 3 if self.__dict__.setdefault("calls", 0) == 0 else 2] = True
        self.calls += 1
        return mask.reshape(grid)


@planted("maskers", "draws another mask of the same generator")
class Ungoverned(Unsteady):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        return (np.random.permutation(grid.tokens) < 3).reshape(grid)  # noqa: NPY002


@planted("backbones", "lets hidden pixels reach what it returns")
class Leaking(ImageViT):
    def forward(self, pixels: Tensor, *given: Any, **more: Any) -> Encoded:
        return Encoded(super().forward(pixels, *given, **more).tokens + pixels.mean())


@planted("maskers", "read-only")
class Blackening(Unsteady):
    needs_pixels = True

    def __call__(self, grid: Grid, rng: np.random.Generator, *, pixels: np.ndarray) -> np.ndarray:
        pixels[:] = 0
        return super().__call__(grid, rng)


@planted(
    "datasets", r"its header announces uint8 \(1, 40, 40, 3\), read returns uint8 \(1, 30, 40, 3\)"
)
class Lying(Dataset):
    class Options(PartOptions):
        pass

    def __init__(self, options: Options) -> None:
        pass

    def __len__(self) -> int:
        return 12

    def name(self, index: int) -> str:
        return f"sample {index}"

    def open(self, index: int) -> Source:
        return Source(
            SourceInfo(self.name(index), 40, 40, 3), lambda _: np.zeros((1, 30, 40, 3), np.uint8)
        )


@planted("datasets", r"its header announces uint8 \(1, 40, 40, 3\), read returns float32")
class Mistyped(Lying):
    def open(self, index: int) -> Source:
        return Source(
            SourceInfo(self.name(index), 40, 40, 3), lambda _: np.zeros((1, 40, 40, 3), np.float32)
        )


@planted("datasets", "returns other pixels of sample")
class Restless(Lying):
    def open(self, index: int) -> Source:
        def read(_: Sequence[int]) -> np.ndarray:
            return np.random.randint(0, 255, (1, 40, 40, 3), np.uint8)  # noqa: NPY002

        return Source(SourceInfo(self.name(index), 40, 40, 3), read)


KEYS = {
    "maskers": "pretrain.masker",
    "targets": "pretrain.target",
    "backbones": "model.backbone",
    "decoders": "model.decoder",
    "datasets": "data.train",
}
OLD = {  # options of the part that the fault takes the place of
    "maskers": ("ratio",),
    "targets": (),
    "backbones": (),
    "decoders": (),
    "datasets": ("path",),
}


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_its_parts(
    name: str, tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, said = CASES[name]
    key = KEYS[kind]
    site.install("maekit-faulty", PARTS, version="0.3")
    monkeypatch.chdir(tmp_path)
    draw_smooth(Path("pictures"), 8, 0)
    part: dict[str, Any] = {"name": name}
    for section in reversed(key.split(".")):
        part = {section: part}
    without = [f"{key}.{option}" for option in OLD[kind]] + ["data.val"]
    file = write_recipe(
        Path("faulty.yaml"), IMAGES, sets("pictures", "pictures"), part, {"pretrain": {"steps": 1}},
        without=tuple(without),
    )  # fmt: skip
    with pytest.raises(PartError, match=said) as caught:
        maekit.run(file, out="run")
    error = caught.value
    assert error.exit_code == 2
    assert error.where.startswith("faulty.yaml:")
    assert f"{key}: {kind[:-1]} '{name}' of maekit-faulty 0.3" in error.what
    assert not Path("run/weights.safetensors").exists()
    assert "Traceback" in Path("run/log.txt").read_text()


def test_a_target_is_opened_before_its_state_is_loaded(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("maekit-opened", {"targets": {"opened": "test_part_faults:Opened"}})
    monkeypatch.chdir(tmp_path)
    draw_smooth(Path("pictures"), 8, 0)
    more = {"pretrain": {"target": {"name": "opened"}, "steps": 1}}
    recipe = write_recipe(Path("it.yaml"), IMAGES, sets("pictures", "pictures"), more)
    maekit.run(recipe, out="run")
    assert Path("run/weights.safetensors").exists()


class Opened(Plain):
    """Has its table from a file, and its teacher when it sees the encoder."""

    loaded: Mapping[str, Tensor] | None = None

    def open(self) -> Mapping[str, object]:
        self.table = torch.ones(2)
        return {}

    def state(self) -> Mapping[str, Tensor]:
        return {"table": self.table, "norm": self.norm} if hasattr(self, "norm") else {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.table.copy_(tensors["table"])
        self.loaded = tensors

    def attach(self, backbone: Backbone) -> None:
        norm = backbone.last_norm().weight.detach().clone()
        self.norm = norm if self.loaded is None else self.loaded["norm"]


def test_what_a_target_keeps_of_its_own_parameters_is_trained(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("maekit-scaled", {"targets": {"scaled": "test_part_faults:Scaled"}})
    monkeypatch.chdir(tmp_path)
    draw_smooth(Path("pictures"), 8, 0)
    recipe = write_recipe(
        Path("scaled.yaml"),
        IMAGES,
        sets("pictures", "pictures"),
        {
            "pretrain": {
                "target": {"name": "scaled"},
                "optimizer": {"name": "adamw", "base_lr": 1.0},
                "steps": 2,
            }
        },
    )
    maekit.run(recipe, out="run")
    scale = maekit.load("run").target.scale
    assert scale != 1


class Scaled(Learning):
    """A learned loss scale that is kept, as the contract has it."""

    def state(self) -> Mapping[str, Tensor]:
        return {"scale": self.scale}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.scale.copy_(tensors["scale"])
