"""Make a folder of samples that the part reads."""

from pathlib import Path

import numpy as np


def main() -> None:
    """Write 64 pictures of noise to ``samples``."""
    folder = Path("samples")
    folder.mkdir(exist_ok=True)
    for number in range(64):
        rng = np.random.default_rng(number)
        np.save(folder / f"{number}.npy", rng.integers(0, 256, (1, 72, 96, 3), dtype=np.uint8))


if __name__ == "__main__":
    main()
