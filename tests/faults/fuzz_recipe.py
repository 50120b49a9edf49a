"""Recipes and overrides, damaged."""

from __future__ import annotations

import random
from pathlib import Path

from fuzz import ODD, damaged

from maekit.recipe.load import load
from maekit.recipe.shipped import shipped

KEYS = ("data.size", "pretrain.steps", "seed", "a.b", "name", "extends", "pretrain.masker.name")


def case(rng: random.Random, folder: Path) -> None:
    """Read a damaged copy of a shipped recipe, at times with overrides."""
    files = list(shipped().values())
    path = folder / "recipe.yaml"
    path.write_bytes(damaged(rng, rng.choice(files).read_bytes()))
    words = []
    while rng.random() < 0.3:
        value = rng.choice(ODD).decode("utf-8", "surrogateescape")
        words.append(rng.choice((f"{rng.choice(KEYS)}={value}", f"~{value}", value)))
    if rng.random() < 0.05:
        words.append(".".join("a" * rng.choice((10, 3000))) + "=1")
    if rng.random() < 0.1:
        path.write_bytes(b"extends: " + rng.choice(ODD) + b"\n" + path.read_bytes())
    load(path, words)
