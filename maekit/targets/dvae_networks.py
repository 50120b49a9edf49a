"""The discrete VAE of DALL-E (arXiv 2102.12092, appendix A.1), of any size.

Convolutions have the names and shapes of github.com/openai/DALL-E, so that its weights fit:
``blocks.input.w [width, C, 7, 7]``, ``blocks.group_1.block_1.res_path.conv_1.w``, ...

B images of C channels and H x W pixels; V codes; S pixels a side per code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maekit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maekit.recipe.tokenizer import DVAESizes

ROUNDING = 1e-4  # of float pixels: how far beyond [0, 1] they may come out of resizing
EDGE = 0.1  # what is kept free at both ends of [0, 1], where a logit has no bound


class Convolution(nn.Module):
    """A convolution that keeps the size, with DALL-E's names and initialization.

    Weights are normal with a variance of 1 / (inputs of an output), biases zero.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        deviation = (inputs * kernel**2) ** -0.5
        shape = (outputs, inputs, kernel, kernel)
        self.w = nn.Parameter(nn.init.normal_(torch.empty(shape), std=deviation))
        self.b = nn.Parameter(torch.zeros(outputs))
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, H, W]`` to ``[B, outputs, H, W]``."""
        out: Tensor = F.conv2d(x, self.w, self.b, padding=self.padding)
        return out


class Block(nn.Module):
    """A residual block with a bottleneck of a quarter of its width.

    Its four convolutions have the kernels ``3, 3, 3, 1`` in the encoder and ``1, 3, 3, 3`` in the
    decoder. ``gain`` makes the residual small at first: 1 / (blocks of the network)**2.
    """

    def __init__(self, inputs: int, outputs: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        hidden = outputs // 4
        widths = (inputs, hidden, hidden, hidden, outputs)
        self.gain = gain
        self.id_path = nn.Identity() if inputs == outputs else Convolution(inputs, outputs, 1)
        self.res_path = nn.Sequential()
        for number, kernel in enumerate(kernels, start=1):
            convolution = Convolution(widths[number - 1], widths[number], kernel)
            self.res_path.add_module(f"relu_{number}", nn.ReLU())
            self.res_path.add_module(f"conv_{number}", convolution)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, H, W]`` to ``[B, outputs, H, W]``."""
        out: Tensor = self.id_path(x) + self.gain * self.res_path(x)
        return out


class _Network(nn.Module):
    """Input, groups of blocks with a change of resolution between two groups, output."""

    def __init__(
        self,
        sizes: DVAESizes,
        first: Convolution,
        widths: Sequence[int],
        last: Convolution,
        kernels: Sequence[int],
        between: tuple[str, type[nn.Module], dict[str, object]],
    ) -> None:
        super().__init__()
        gain = (sizes.groups * sizes.blocks) ** -2.0
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", first)
        inputs = first.w.shape[0]
        for number, width in enumerate(widths, start=1):
            group = nn.Sequential()
            for block in range(1, sizes.blocks + 1):
                group.add_module(f"block_{block}", Block(inputs, width, kernels, gain))
                inputs = width
            if number < sizes.groups:
                name, resize, options = between
                group.add_module(name, resize(**options))
            self.blocks.add_module(f"group_{number}", group)
        output = nn.Sequential()
        output.add_module("relu", nn.ReLU())
        output.add_module("conv", last)
        self.blocks.add_module("output", output)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.blocks(x)
        return result

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def _widths(sizes: DVAESizes) -> list[int]:
    return [sizes.width << group for group in range(sizes.groups)]


class Encoder(_Network):
    """Mapped pixels ``[B, C, H, W]`` to logits ``[B, V, H/S, W/S]``; max-pooling in between."""

    def __init__(self, sizes: DVAESizes, channels: int) -> None:
        widths = _widths(sizes)
        super().__init__(
            sizes,
            Convolution(channels, sizes.width, 7),
            widths,
            Convolution(widths[-1], sizes.vocabulary, 1),
            kernels=(3, 3, 3, 1),
            between=("pool", nn.MaxPool2d, {"kernel_size": 2}),
        )

    def codes(self, pixels: Tensor) -> Tensor:
        """Return the most likely codes, int64 ``[B, H/S, W/S]``, of ``[B, C, H, W]`` in [0, 1]."""
        logits: Tensor = self(map_pixels(pixels))
        return logits.argmax(dim=1)


class Decoder(_Network):
    """Codes, one-hot or relaxed, ``[B, V, H/S, W/S]`` to ``[B, 2*C, H, W]``.

    The first C are the location, the others the logarithm of the scale of a logit-Laplace
    distribution of the mapped pixels.
    """

    def __init__(self, sizes: DVAESizes, channels: int) -> None:
        super().__init__(
            sizes,
            Convolution(sizes.vocabulary, sizes.init_width, 1),
            _widths(sizes)[::-1],
            Convolution(sizes.width, 2 * channels, 1),
            kernels=(1, 3, 3, 3),
            between=("upsample", nn.Upsample, {"scale_factor": 2, "mode": "nearest"}),
        )


class DVAE(nn.Module):
    """Both networks: pixels in [0, 1] to codes, and codes to pixels."""

    def __init__(self, sizes: DVAESizes, channels: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.channels = channels
        self.encoder = Encoder(sizes, channels)
        self.decoder = Decoder(sizes, channels)

    def logits(self, pixels: Tensor) -> Tensor:
        """Map pixels ``[B, C, H, W]`` in [0, 1] to ``[B, V, H/S, W/S]``."""
        logits: Tensor = self.encoder(map_pixels(pixels))
        return logits

    def distribution(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes ``[B, V, H/S, W/S]`` to location and log scale, float32 ``[B, C, H, W]``."""
        location, log_scale = self.decoder(codes).float().chunk(2, dim=1)
        return location, log_scale

    def reconstruct(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Rebuild pixels ``[B, C, H, W]`` from their most likely codes.

        Returns:
            The pixels that the decoder makes of them, in [0, 1], and the codes.
        """
        codes = self.encoder.codes(pixels)
        onehot = F.one_hot(codes, self.sizes.vocabulary).movedim(-1, 1).to(pixels.dtype)
        location, _ = self.distribution(onehot)
        return unmap_pixels(location.sigmoid()).clamp(0, 1), codes

    def blocks(self) -> list[nn.Module]:
        """Return the residual blocks of both networks, first to last."""
        return [module for module in self.modules() if isinstance(module, Block)]


def as_pictures(clips: Tensor) -> Tensor:
    """Turn clips ``[B, C, T, H, W]`` into frames ``[B*T, C, H, W]``, with the channels last."""
    pictures = clips.transpose(1, 2).flatten(0, 1)
    return pictures.contiguous(memory_format=torch.channels_last)


def check_range(pixels: Tensor, where: str) -> None:
    """Raise DataError unless pixels are within [0, 1], which a dVAE is made for."""
    low, high = (float(value) for value in pixels.aminmax())
    if low < -ROUNDING or high > 1 + ROUNDING:
        msg = f"a dVAE reads pixels in [0, 1], and these go from {low:.4g} to {high:.4g}"
        raise DataError(msg, where=where, hint="scale float pictures to [0, 1] first")


def map_pixels(pixels: Tensor) -> Tensor:
    """Map [0, 1] to [0.1, 0.9], where logits are finite (appendix A.3)."""
    return (1 - 2 * EDGE) * pixels + EDGE


def unmap_pixels(mapped: Tensor) -> Tensor:
    """Invert ``map_pixels``; values outside [0.1, 0.9] leave [0, 1]."""
    return (mapped - EDGE) / (1 - 2 * EDGE)
