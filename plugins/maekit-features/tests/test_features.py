"""HOG against a slow and plain one, and teachers against the networks that they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from maekit.contracts import Grid, PartContext, PartError, WeightsError
from maekit.testing import check_target
from maekit.testing.modules import example
from maekit.tokens import Mask
from maekit_features.hog import HOG, hog
from maekit_features.teacher import Teacher

PICTURE = PartContext(
    (1, 32, 64), 3, (0.5,) * 3, (0.2,) * 3, grid=Grid(1, 2, 4), patch=(1, 16, 16), width=8
)


def plain_hog(picture: np.ndarray, bins: int, cell: int, *, gaussian: bool) -> np.ndarray:
    """Vote pixel by pixel: ``[bins, H/cell, W/cell]`` of one channel."""
    height, width = picture.shape
    padded = np.pad(picture, 1, mode="reflect")
    votes = np.zeros((bins, height // cell, width // cell))
    for y in range(height):
        for x in range(width):
            near = padded[y : y + 3, x : x + 3]
            across = near[:, 0] @ [1, 2, 1] - near[:, 2] @ [1, 2, 1]
            down = [1, 2, 1] @ near[0] - [1, 2, 1] @ near[2]
            turn = math.atan2(across, down) / math.pi * bins
            away = [(place % (2 * cell) - (cell - 0.5)) / cell for place in (y, x)]
            weight = math.exp(-(away[0] ** 2 + away[1] ** 2) / 2) if gaussian else 1.0
            votes[math.floor(turn) % bins, y // cell, x // cell] += weight * math.hypot(
                across, down
            )
    return votes / np.linalg.norm(votes, axis=0)


@pytest.mark.parametrize("gaussian", [False, True])
def test_hog_is_the_plain_one(gaussian: bool) -> None:
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    found = hog(pictures, 9, 8, gaussian=gaussian)
    assert found.shape == (2, 3, 9, 2, 3)
    expected = plain_hog(pictures[1, 2].double().numpy(), 9, 8, gaussian=gaussian)
    # Sums of at most 64 votes, each of gradients of a few roundings, and histograms of length 1.
    rounding = (64 + 8) * float(torch.finfo(torch.float32).eps)
    np.testing.assert_allclose(found[1, 2], expected, atol=rounding, rtol=0)


def test_hog_of_an_edge_is_one_bin_in_its_own_tokens() -> None:
    target = HOG(HOG.Options(), PICTURE)
    assert target.out_dim == 2 * 2 * 3 * 9  # 108, as MaskFeat's of 16 x 16 pixels
    pixels = torch.zeros(1, 3, 1, 32, 64)
    pixels[..., 20:] = 1  # upright, in the second column of tokens
    truth = target.encode([pixels], Mask.build(torch.ones(1, 8, dtype=torch.bool)))
    assert truth.shape == (1, 8, 108)
    assert not truth[0, [0, 2, 3, 4, 6, 7]].any()
    cells = truth[0, 1].reshape(2, 2, 3, 9)  # rows, columns, channels, bins
    upright = torch.nn.functional.one_hot(torch.tensor(4), 9).float()  # atan2(-1, 0) = -90 degrees
    torch.testing.assert_close(cells[:, 0], upright.expand(2, 3, 9))
    assert not cells[:, 1].any()
    with pytest.raises(PartError, match="16x16 pixels do not divide into cells of 3"):
        HOG(HOG.Options(cell=3), PICTURE)


def test_hog_of_clips_is_of_each_slots_first_frame() -> None:
    clip = PartContext((4, 16, 16), 1, (0.5,), (0.2,), grid=Grid(2, 2, 2), patch=(2, 8, 8), width=8)
    target = HOG(HOG.Options(bins=4), clip)
    pixels = torch.rand(1, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = Mask.build(torch.ones(1, 8, dtype=torch.bool))
    truth = target.encode([pixels], mask)
    other = pixels.clone()
    other[:, :, 1::2] = 0
    assert torch.equal(truth, target.encode([other], mask))
    expected = hog(pixels[:, :, 2], 4, 8, gaussian=True)
    torch.testing.assert_close(truth[0, 4:].T.reshape(4, 2, 2), expected[0, 0])


def teacher(weights: Path, **options: object) -> Teacher:
    wanted = {"weights": str(weights), **options}
    return Teacher(Teacher.Options.model_validate(wanted), PICTURE)


def timm_file(name: str, path: Path, **options: object) -> torch.nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, **options).eval()
    torch.save(network.state_dict(), path)
    return network


SEEN = torch.rand(2, 3, 1, 32, 64, generator=torch.Generator().manual_seed(1))
EVEN = Mask.build(torch.tensor([[True, False] * 4] * 2))


def encode(target: Teacher) -> torch.Tensor:
    (view,) = target.views
    seen = torch.rand(2, 3, 1, *view.size, generator=torch.Generator().manual_seed(2))
    return target.encode([SEEN, seen], EVEN)


def test_a_plain_vit_is_asked_at_each_token(tmp_path: Path) -> None:
    path = tmp_path / "vit.pth"
    network = timm_file("test_vit", path, img_size=(32, 64))
    target = teacher(path, model="test_vit", width=64, norm=False)
    pin = target.open()
    assert target.views[0].size == (32, 64)
    truth = encode(target)
    seen = torch.rand(2, 3, 1, 32, 64, generator=torch.Generator().manual_seed(2))
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        tokens = network.forward_features((seen[:, :, 0] - mean) / std)[
            :, network.num_prefix_tokens :
        ]
    torch.testing.assert_close(truth, tokens[:, ::2])
    with pytest.raises(WeightsError, match="is expected"):
        teacher(path, model="test_vit", width=64, sha256="0" * 64).open()
    assert teacher(path, model="test_vit", width=64, **pin).open() == pin


def test_a_convolutional_network_too(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    network = timm_file("test_convnext", path)
    width, stride = network.num_features, network.feature_info[-1]["reduction"]
    target = teacher(path, model="test_convnext", width=width, patch=stride)
    assert target.views[0].size == (2 * stride, 4 * stride)
    target.open()
    truth = encode(target)
    assert truth.shape == (2, 4, width)
    torch.testing.assert_close(truth.mean(-1), torch.zeros(2, 4), atol=1e-5, rtol=0)


def test_wrong_numbers_are_answered_with_the_right_ones(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    network = timm_file("test_convnext", path)
    with pytest.raises(PartError, match=f"of {network.num_features} values"):
        teacher(path, model="test_convnext", width=7, patch=32).open()
    with pytest.raises(PartError, match=r"gives 2 tokens .* and 8 of"):
        teacher(path, model="test_convnext", width=network.num_features, patch=16).open()
    with pytest.raises(WeightsError, match="this is no test_vit"):
        teacher(path, model="test_vit", width=7).open()
    with pytest.raises(PartError, match="no such file"):
        teacher(tmp_path / "absent", model="test_vit", width=7).open()
    with pytest.raises(PartError, match="has no model 'no_such'"):
        teacher(path, model="no_such", width=7).open()


@pytest.mark.parametrize(
    ("loss", "expected"), [("smooth-l1", (0.5 * 0.25 + 1.5) / 2), ("mse", (0.25 + 4) / 2)]
)
def test_losses(loss: str, expected: float) -> None:
    target = teacher(Path("none"), width=2, loss=loss)
    found = target.loss(torch.tensor([[[0.5, 2.0]]]), torch.zeros(1, 1, 2))
    torch.testing.assert_close(found, torch.tensor([[expected]]))
    turned = teacher(Path("none"), width=2, loss="cosine")
    found = turned.loss(torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[3.0, 0.0]]]))
    torch.testing.assert_close(found, torch.tensor([[1.0]]))


@pytest.mark.parametrize("options", [{"cell": 4}, {"cell": 8, "bins": 12, "gaussian": False}])
def test_hog_keeps_its_promises(options: dict[str, object]) -> None:
    check_target(HOG, options)


@pytest.mark.parametrize("loss", ["smooth-l1", "cosine"])
def test_a_teacher_keeps_its_promises(tmp_path: Path, loss: str) -> None:
    path = tmp_path / "net.pth"
    network = timm_file("test_vit", path, img_size=(32, 64))
    options = {
        "weights": str(path),
        "model": "test_vit",
        "width": network.num_features,
        "loss": loss,
    }
    check_target(Teacher, options, contexts=[example((1, 32, 64), (1, 16, 16))])
