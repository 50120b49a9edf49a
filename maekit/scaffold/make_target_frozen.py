"""Make a file that stands for the frozen network."""

import torch
from safetensors.torch import save_file


def main() -> None:
    """Write a random projection of patches of 8 x 8 pixels to ``network.safetensors``."""
    generator = torch.Generator().manual_seed(0)
    save_file({"projection": torch.randn(192, 16, generator=generator)}, "network.safetensors")


if __name__ == "__main__":
    main()
