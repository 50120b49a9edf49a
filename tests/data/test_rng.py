"""Keyed generators and the seeding of global ones."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from maekit.data.rng import generator, seeded


def test_each_part_of_the_key_matters_and_nothing_else() -> None:
    keys = [
        {"seed": 0, "purpose": "plan"},
        {"seed": 1, "purpose": "plan"},
        {"seed": 2**32, "purpose": "plan"},
        {"seed": 0, "purpose": "mask"},
        {"seed": 0, "purpose": "plan", "epoch": 1},
        {"seed": 0, "purpose": "plan", "index": 1},
        {"seed": 0, "purpose": "plan", "index": 2**32},
        {"seed": 0, "purpose": "plan", "repeat": 1},
    ]
    draws = [tuple(generator(**key).integers(0, 2**63, 4)) for key in keys]
    assert len(set(draws)) == len(keys)
    np.random.seed(5)  # noqa: NPY002
    assert [tuple(generator(**key).integers(0, 2**63, 4)) for key in keys] == draws


def test_the_same_in_another_process() -> None:
    code = (
        "from maekit.data.rng import generator;"
        "print(generator(3, purpose='mask', epoch=2, index=9).integers(0, 2**63))"
    )
    here = generator(3, purpose="mask", epoch=2, index=9).integers(0, 2**63)
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert int(there.stdout) == here


def test_global_state_is_set_and_restored_even_after_an_error() -> None:
    import torch

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    before = draw()
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
    with seeded(1, purpose="transform", index=4):
        first = draw()
    again = []

    def fail() -> None:
        with seeded(1, purpose="transform", index=4):
            again.append(draw())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with seeded(1, purpose="transform", index=5):
        other = draw()
    assert draw() == before
    assert [first] == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def test_torch_is_left_alone_where_it_is_not_imported() -> None:
    code = (
        "import sys, random; from maekit.data.rng import seeded\n"
        "with seeded(1, purpose='x'): random.random()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
