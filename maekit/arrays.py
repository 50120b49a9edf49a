"""What a model makes of a picture or clip, as arrays: ``model.reconstruct(image)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from maekit import registry
from maekit.data.masks import MaskDraw
from maekit.data.pixels import DTYPES, crop_resize, to_float01
from maekit.data.rendering import fitted_box
from maekit.recipe.schema import MaskerSpec
from maekit.tokens import Mask, patchify, unpatchify

if TYPE_CHECKING:
    from torch import Tensor

    from maekit.contracts import Grid
    from maekit.model import MaskedAutoencoder

RATIOS = {"random": 0.75, "tube": 0.9}  # of what is hidden, as in the papers
_IMAGE, _CLIP, _BATCH = 3, 4, 5  # dimensions


class Reconstruction(NamedTuple):
    """What a model made of one picture ``[H, W, C]`` or clip ``[T, H, W, C]``, float32 in [0, 1].

    Attributes:
        original: as the model was shown it, before it was masked.
        masked: with gray where it was hidden.
        prediction: what the model predicts there; the original where it was not asked.
        hidden: bool, over the pixels: ``[H, W]`` or ``[T, H, W]``.
    """

    original: np.ndarray
    masked: np.ndarray
    prediction: np.ndarray
    hidden: np.ndarray


def draw_masks(
    masker: str,
    grid: Grid,
    unit: tuple[int, int, int] = (1, 1, 1),
    *,
    count: int = 1,
    seed: int = 0,
    clip: tuple[int, int, int, int] | None = None,
    **options: Any,  # noqa: ANN401 - a part's own
) -> Tensor:
    """Draw masks, bool ``[count, N]``, True = hidden.

    Args:
        masker: its name.
        grid: of N tokens.
        unit: tokens that are hidden together.
        count: how many masks.
        seed: of all of them.
        clip: ``[T, H, W, C]`` pixels that maskers which look at them get: black ones.
        options: of the masker.

    Raises:
        PartError: there is no such masker, or it hides nothing, or all.
        RecipeError: an option is wrong.
    """
    spec = registry.spec_of(MaskerSpec, {"name": masker, **options})
    shape = clip or (grid.t, grid.h, grid.w, 1)
    draw = MaskDraw(registry.build(spec), grid, unit, shape)
    rng, black = np.random.default_rng(seed), np.zeros(shape, np.uint8)
    return torch.from_numpy(np.stack([draw.draw(rng, black) for _ in range(count)]))


@torch.inference_mode()
def reconstruct(
    model: MaskedAutoencoder,
    image: Any,  # noqa: ANN401 - whatever numpy takes
    hidden: Any = None,  # noqa: ANN401 - likewise
    *,
    ratio: float | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Do what ``MaskedAutoencoder.reconstruct`` says."""
    pixels = _as_clip(model, image)
    grid, backbone = model.grid, model.backbone
    if hidden is None:
        name = "random" if grid.t == 1 else "tube"
        chosen = RATIOS[name] if ratio is None else ratio
        rows = draw_masks(name, grid, backbone.mask_unit, seed=seed, ratio=chosen)
    else:
        rows = torch.as_tensor(np.asarray(hidden, bool)).reshape(1, -1)
        if rows.shape[1] != grid.tokens:
            msg = f"hidden has {rows.shape[1]} values, and the model's grid is {grid}: one a token"
            raise ValueError(msg)
    mask = Mask.build(rows.to(pixels.device))
    patches = patchify(pixels, backbone.patch)
    painted = model.paint(pixels, mask)
    places = mask.queries[..., None].expand_as(painted)
    over = mask.hidden()[..., None].expand_as(patches)
    gray = torch.where(over, 0.5, patches)
    stages = (patches, gray, patches.scatter(1, places, painted.clamp(0, 1)), over.float())
    clips = [_array(unpatchify(each, grid, backbone.patch)) for each in stages]
    original, masked, prediction, where = clips if grid.t > 1 else [each[0] for each in clips]
    return Reconstruction(original, masked, prediction, where[..., 0] > 0.5)


def _array(clip: Tensor) -> np.ndarray:
    """Return ``[1, C, T, H, W]`` as float32 ``[T, H, W, C]``."""
    array: np.ndarray = clip[0].permute(1, 2, 3, 0).float().cpu().numpy()
    return array


def _as_clip(model: MaskedAutoencoder, image: Any) -> Tensor:  # noqa: ANN401 - as above
    """Return what a model sees of an image: ``[1, C, T, H, W]`` in [0, 1], of its own size."""
    frames, height, width = model.clip
    channels = len(model.statistics.mean)
    if isinstance(image, torch.Tensor) and image.dim() == _BATCH:
        clip = image.float()
    else:
        array = np.asarray(image)
        if array.dtype.name not in DTYPES:  # float64, say, which numpy makes by itself
            plain = array.dtype.kind in "fb"
            array = array.astype(np.float32) if plain else to_float01(array)
        array = array[..., None] if array.ndim == _IMAGE - 1 else array
        array = array[None] if array.ndim == _IMAGE else array
        if array.ndim != _CLIP:
            msg = f"an image is [H, W, C], a clip [T, H, W, C]; this is {list(array.shape)}"
            raise ValueError(msg)
        shown = to_float01(np.ascontiguousarray(_fitted(array, (height, width))))
        clip = torch.from_numpy(shown).float()
        clip = clip.permute(3, 0, 1, 2)[None]
    if clip.shape[1] == 1 and channels > 1:
        clip = clip.expand(-1, channels, -1, -1, -1)
    if clip.shape[2] == 1 and frames > 1:  # a picture stands still
        clip = clip.expand(-1, -1, frames, -1, -1)
    if clip.shape != (1, channels, *model.clip):
        msg = (
            f"the model takes one clip of {channels} channels and {frames} frames of {height} x "
            f"{width} pixels, this is {list(clip.shape)}: [1, C, T, H, W]"
        )
        raise ValueError(msg)
    return clip.to(model.device)


def _fitted(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut the middle of ``[T, H, W, C]`` out and resize it, as held-out samples are shown."""
    if array.shape[1:3] == size:
        return array
    _, down, across, _ = array.shape
    box = fitted_box(down, across, size, "crop")
    return np.stack([crop_resize(frame, box, size, "context", "bicubic") for frame in array])
