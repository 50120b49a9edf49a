"""The names and shapes of DALL-E's encoder, written out from its description, not from our code."""

from __future__ import annotations

import torch


def encoder_tensors(
    width: int = 256, vocabulary: int = 8192, blocks: int = 2, channels: int = 3, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Make a state dict with four groups, as OpenAI's encoder.pkl has, of random numbers."""
    shapes: dict[str, tuple[int, ...]] = {"blocks.input.w": (width, channels, 7, 7)}
    before = width
    for group, factor in ((1, 1), (2, 2), (3, 4), (4, 8)):
        after = width * factor
        for block in range(1, blocks + 1):
            name = f"blocks.group_{group}.block_{block}"
            if before != after:
                shapes[f"{name}.id_path.w"] = (after, before, 1, 1)
            inner = after // 4
            shapes[f"{name}.res_path.conv_1.w"] = (inner, before, 3, 3)
            shapes[f"{name}.res_path.conv_2.w"] = (inner, inner, 3, 3)
            shapes[f"{name}.res_path.conv_3.w"] = (inner, inner, 3, 3)
            shapes[f"{name}.res_path.conv_4.w"] = (after, inner, 1, 1)
            before = after
    shapes["blocks.output.conv.w"] = (vocabulary, width * 8, 1, 1)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5
        tensors[name] = torch.randn(shape, generator=generator) * scale
        tensors[name.removesuffix("w") + "b"] = torch.randn(shape[0], generator=generator) * 0.1
    return tensors


def logits(tensors: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
    """Return what an encoder of these tensors says of pixels ``[B, C, H, W]`` in [0, 1]."""

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        weight = tensors[f"{name}.w"]
        padding = (weight.shape[-1] - 1) // 2
        return torch.nn.functional.conv2d(x, weight, tensors[f"{name}.b"], padding=padding)

    blocks = len({name.split(".")[2] for name in tensors if ".group_1." in name})
    x = conv("blocks.input", 0.8 * pixels + 0.1)
    for group in (1, 2, 3, 4):
        for block in range(1, blocks + 1):
            name = f"blocks.group_{group}.block_{block}"
            inner = x
            for number in (1, 2, 3, 4):
                inner = conv(f"{name}.res_path.conv_{number}", inner.clamp(min=0))
            kept = conv(f"{name}.id_path", x) if f"{name}.id_path.w" in tensors else x
            x = kept + inner / (4 * blocks) ** 2
        if group < 4:
            x = torch.nn.functional.max_pool2d(x, 2)
    return conv("blocks.output.conv", x.clamp(min=0))
