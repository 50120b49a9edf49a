"""Latent targets: the teacher is the average that it says, and comes back as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from maekit.backbones.image_vit import ImageViT
from maekit.contracts import Grid, PartContext, PartError, WeightsError
from maekit.testing import check_target
from maekit.tokens import Mask
from maekit_latent.targets import IJEPA, Data2vec

CONTEXT = PartContext(
    (1, 16, 16), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25), grid=Grid(1, 2, 2), patch=(1, 8, 8),
    width=16, prefix_tokens=1, layer_widths=(16, 16, 16),
)  # fmt: skip
PIXELS = torch.rand(2, 3, 1, 16, 16, generator=torch.Generator().manual_seed(3))
MASK = Mask.build(torch.tensor([[True, False, True, False], [False, True, True, False]]))


def vit(seed: int = 0) -> ImageViT:
    torch.manual_seed(seed)
    options = {"size": "tiny", "width": 16, "depth": 3, "heads": 2, "patch": 8}
    options |= {"positions": "learned"}
    return ImageViT(ImageViT.Options.model_validate(options), CONTEXT).train()


def normalized(pixels: Tensor) -> Tensor:
    shape = (1, 3, 1, 1, 1)
    return (pixels - torch.tensor(CONTEXT.mean).view(shape)) / torch.tensor(CONTEXT.std).view(shape)


def test_the_average_is_that_of_the_formula() -> None:
    target = IJEPA(IJEPA.Options(decay=0.5, decay_end=1.0, ramp=0.5), CONTEXT)
    student = nn.Linear(1, 1, bias=False)
    nn.init.constant_(student.weight, 8.0)
    target.attach(student)  # type: ignore[arg-type] - any module is averaged
    found = []
    for step, value in enumerate((0.0, 4.0, 100.0), 1):
        nn.init.constant_(student.weight, value)
        target.after_update(step, 4)
        found.append(float(target.state()["weight"]))
    # Decays: 0.5 + 0.5 * step / 2 = 0.75, 1, 1. 8 * 0.75 = 6, and then it stands still.
    assert found == [6.0, 6.0, 6.0]
    steady = IJEPA(IJEPA.Options(decay=0.5, decay_end=None), CONTEXT)
    steady.attach(student)  # type: ignore[arg-type]
    nn.init.constant_(student.weight, 0.0)
    steady.after_update(1, 4)
    assert float(steady.state()["weight"]) == 50.0
    with pytest.raises(ValidationError, match=r"decay_end: 0\.9 is below decay"):
        IJEPA.Options(decay=0.95, decay_end=0.9)


def test_ijepa_predicts_the_normalized_output_of_the_whole_picture() -> None:
    target, backbone = IJEPA(IJEPA.Options(), CONTEXT), vit()
    target.attach(backbone)
    truth = target.encode([PIXELS], MASK)
    with torch.no_grad():
        tokens = backbone.eval()(normalized(PIXELS), Mask.nothing_hidden(2, 4)).tokens[:, 1:]
    expected = torch.stack(
        [row[queries] for row, queries in zip(tokens, MASK.queries, strict=True)]
    )
    expected = (expected - expected.mean(-1, keepdim=True)) / (
        expected.var(-1, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    torch.testing.assert_close(truth, expected)
    assert target.out_dim == 16
    pred = truth + torch.tensor([0.5, 3.0] * 8)
    torch.testing.assert_close(target.loss(pred, truth), torch.full((2, 2), (0.125 + 2.5) / 2))


def test_data2vec_predicts_the_mean_of_the_last_blocks() -> None:
    backbone = vit()
    with torch.no_grad():
        whole = Mask.nothing_hidden(2, 4)
        layers = backbone.eval()(normalized(PIXELS), whole, (1, 2)).layers
    plain = Data2vec(Data2vec.Options(layers=2, norm="none"), CONTEXT)
    plain.attach(backbone)
    truth = plain.encode([PIXELS], MASK)
    mean = ((layers[0] + layers[1]) / 2)[:, 1:]
    expected = torch.stack([row[queries] for row, queries in zip(mean, MASK.queries, strict=True)])
    torch.testing.assert_close(truth, expected)

    def normed(tokens: Tensor) -> Tensor:
        centered = tokens - tokens.mean(-1, keepdim=True)
        return centered / (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    for norm, values in {
        "layers": (normed(layers[0]) + normed(layers[1])) / 2,
        "mean": normed((layers[0] + layers[1]) / 2),
        None: normed((normed(layers[0]) + normed(layers[1])) / 2),  # both, as the authors
    }.items():
        options = {} if norm is None else {"norm": norm}
        target = Data2vec(Data2vec.Options.model_validate({"layers": 2, **options}), CONTEXT)
        target.attach(backbone)
        rows = zip(values[:, 1:], MASK.queries, strict=True)
        expected = torch.stack([row[queries] for row, queries in rows])
        torch.testing.assert_close(target.encode([PIXELS], MASK), expected)
    # Smooth L1 with beta 2: 1 * 1 / (2 * 2) below, 5 - 1 above it.
    loss = plain.loss(truth + torch.tensor([1.0, 5.0] * 8), truth)
    torch.testing.assert_close(loss, torch.full((2, 2), (0.25 + 4.0) / 2))
    with pytest.raises(PartError, match="the encoder has 3 blocks"):
        Data2vec(Data2vec.Options(layers=4), CONTEXT)
    stages = PartContext(**vars(CONTEXT) | {"layer_widths": (8, 16, 16)})
    with pytest.raises(PartError, match="they have no mean"):
        Data2vec(Data2vec.Options(layers=3), stages)


def test_a_teacher_is_neither_trained_nor_changed_with_the_encoder() -> None:
    target, backbone = IJEPA(IJEPA.Options(), CONTEXT), vit()
    target.attach(backbone)
    before = target.encode([PIXELS], MASK)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(1.0)
    assert torch.equal(target.encode([PIXELS], MASK), before)
    assert not before.requires_grad


def test_it_comes_back_from_its_state() -> None:
    target, backbone = IJEPA(IJEPA.Options(), CONTEXT), vit()
    target.attach(backbone)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1)
    target.after_update(1, 10)
    state = {name: tensor.clone() for name, tensor in target.state().items()}
    again = IJEPA(IJEPA.Options(), CONTEXT)
    again.load_state(state)
    assert again.state().keys() == state.keys()  # also before there is an encoder
    again.attach(copy.deepcopy(backbone))
    assert torch.equal(again.encode([PIXELS], MASK), target.encode([PIXELS], MASK))
    other = IJEPA(IJEPA.Options(), CONTEXT)
    other.load_state({"nothing": torch.zeros(1)})
    with pytest.raises(WeightsError, match="not those of this encoder"):
        other.attach(backbone)
    with pytest.raises(PartError, match="there is no teacher"):
        IJEPA(IJEPA.Options(), CONTEXT).encode([PIXELS], MASK)


def test_at_another_size_its_positions_are_the_encoders() -> None:
    target = IJEPA(IJEPA.Options(), CONTEXT)
    target.attach(vit(1))
    state = {name: tensor.clone() for name, tensor in target.state().items()}
    state["positions.table"] = state["positions.table"][:, :3]  # of another grid
    again, backbone = IJEPA(IJEPA.Options(), CONTEXT), vit(2)
    again.load_state(state)
    again.attach(backbone)
    now = again.state()
    assert torch.equal(now["positions.table"], backbone.positions.table)
    others = now.keys() - {"positions.table"}
    assert all(torch.equal(now[name], state[name]) for name in others)
    state["norm.weight"] = torch.zeros(3)
    again = IJEPA(IJEPA.Options(), CONTEXT)
    again.load_state(state)
    with pytest.raises(WeightsError, match="not those of this encoder"):
        again.attach(backbone)


@pytest.mark.parametrize("norm", ["both", "layers", "mean", "none"])
def test_data2vec_keeps_its_promises(norm: str) -> None:
    check_target(Data2vec, {"layers": 1, "norm": norm, "decay": 0.9})


def test_ijepa_keeps_its_promises() -> None:
    check_target(IJEPA, {"decay": 0.9})
