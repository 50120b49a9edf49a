"""Weights of others that a plugin's backbone knows, and its tables at another grid."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from own_parts import Site
from pydantic import BaseModel, Field
from torch import Tensor, nn

import maekit
from maekit.cli.recipes import schema
from maekit.contracts import (
    Backbone,
    Encoded,
    Foreign,
    Grid,
    Masker,
    PartContext,
    PartOptions,
)
from maekit.errors import RecipeError, WeightsError
from maekit.layers import resample_rows
from maekit.tokens import Mask, gather, patchify
from maekit.weights.importer import open_weights


class Plain(Backbone, nn.Module):
    """Patches, a table of its own, one layer: what somebody else publishes as ``stem``."""

    class Options(PartOptions):
        width: int = 8

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__()
        self.width, self.patch = options.width, (1, 4, 4)
        self.embed = nn.Linear(48, self.width)
        grid = self.grid(context.shape)
        self.place = nn.Parameter(torch.zeros(grid.tokens, self.width))
        self.layer = nn.Linear(self.width, self.width)

    def grid(self, shape: tuple[int, int, int]) -> Grid:
        return Grid(1, shape[1] // 4, shape[2] // 4)

    def forward(
        self, pixels: Tensor, mask: Mask, layers: Sequence[int] = (), attention: bool = False
    ) -> Encoded:
        x = self.embed(gather(patchify(pixels, self.patch), mask.visible))
        x = self.layer(x + self.place[mask.visible])
        return Encoded(x, (x,) * len(set(layers)))

    def blocks(self) -> Sequence[nn.Module]:
        return [self.layer]

    def layer_of(self, parameter: str) -> int:
        return int(parameter.startswith("layer."))

    @classmethod
    def foreign(cls, tensors: Mapping[str, Tensor]) -> Foreign | None:
        if "stem.weight" not in tensors:
            return None
        names = {"stem": "embed", "mlp": "layer", "table": "place"}
        own = {}
        for name, tensor in tensors.items():
            first, dot, rest = name.partition(".")
            if first in names:
                own[names[first] + dot + rest] = tensor
        side = round(len(tensors["table"]) ** 0.5) * 4
        return Foreign(
            {"width": len(tensors["stem.bias"])}, own, "the stem project", (1, side, side),
            left_out={"of its head": len(tensors) - len(own)},
        )  # fmt: skip

    def resized(self, tensors: Mapping[str, Tensor], old: Grid, new: Grid) -> Mapping[str, Tensor]:
        return {**tensors, "place": resample_rows(tensors["place"], old, new)}


@pytest.fixture
def file(tmp_path: Path, site: Site) -> Path:
    site.install("stems", {"backbones": {"plain": "test_claimed:Plain"}})
    torch.manual_seed(0)
    tensors = {
        "stem.weight": torch.randn(8, 48), "stem.bias": torch.randn(8),
        "mlp.weight": torch.randn(8, 8), "mlp.bias": torch.randn(8),
        "table": torch.randn(4, 8), "head.weight": torch.randn(5, 8), "head.bias": torch.randn(5),
    }  # fmt: skip
    torch.save(tensors, tmp_path / "stem.pth")
    return tmp_path / "stem.pth"


def test_a_backbone_takes_what_it_recognizes(file: Path) -> None:
    weights = open_weights(file)
    assert weights.header.backbone.name == "stems/plain"
    assert weights.report.aside == ("2 tensors, of its head",)
    model = maekit.load(file)
    pixels = torch.rand(2, 3, 1, 8, 8)
    theirs = torch.load(file)
    patches = patchify(pixels, (1, 4, 4)) @ theirs["stem.weight"].T + theirs["stem.bias"]
    expected = (patches + theirs["table"]) @ theirs["mlp.weight"].T + theirs["mlp.bias"]
    torch.testing.assert_close(model.encode(pixels), expected)


def test_it_fits_its_own_table_to_another_grid(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        wide = maekit.load(file, clip=(1, 8, 16))
    # Said as any other resize, and of what was changed alone.
    assert [line for line in caplog.messages if "fitted by" in line] == [
        "backbone.place: 4x8 to 8x8, fitted by Plain"
    ]
    table = torch.load(file)["table"]
    expected = resample_rows(table, Grid(1, 2, 2), Grid(1, 2, 4))
    torch.testing.assert_close(wide.backbone.place.detach(), expected)


def test_what_it_forgets_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Plain.foreign

    def forgetful(cls: type, tensors: Mapping[str, Tensor]) -> Foreign | None:
        seen = whole(tensors)
        if seen is None:
            return None
        kept = {name: tensor for name, tensor in seen.tensors.items() if name != "place"}
        return Foreign(seen.options, kept, seen.title, seen.shape)

    monkeypatch.setattr(Plain, "foreign", classmethod(forgetful))
    with pytest.raises(WeightsError, match=r"1 missing: backbone\.place"):
        maekit.load(file)


def test_two_that_claim_a_file_are_both_named(file: Path, site: Site) -> None:
    site.install("stems-too", {"backbones": {"plain": "test_claimed:Plain"}})
    with pytest.raises(RecipeError, match="stems/plain and stems-too/plain both take it"):
        maekit.load(file)


class Odd:
    """A type that JSON has no words for."""


class Schemaless(Masker):
    """Its one option is of a type without a JSON Schema."""

    class Options(PartOptions):
        model_config = {"arbitrary_types_allowed": True}  # noqa: RUF012
        table: Any = None
        odd: Annotated[Odd | None, Field()] = None

    def __init__(self, options: Options) -> None:
        pass

    def __call__(self, grid: Grid, rng: np.random.Generator) -> np.ndarray:
        return np.zeros(grid, bool)


def test_an_option_without_a_schema_takes_no_others_away(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert issubclass(Schemaless.Options, BaseModel)
    site.install("odd", {"maskers": {"odd": "test_claimed:Schemaless"}})
    assert schema(None) == 0
    shown = capsys.readouterr()
    assert "left out: masker 'odd' of odd 1.2" in shown.err
    assert '"random"' in shown.out
