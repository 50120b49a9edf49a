"""Checks that any part can be run against, built-in or from a plugin.

Each builds the part itself, many times over, and raises an AssertionError that names every promise
of ``maekit.contracts`` that it breaks; none needs data or a GPU::

    from maekit.testing import check_masker

    def test_masker():
        check_masker(MyMasker, {"ratio": 0.6})

``only`` and ``without`` take names of promises; ``maekit plugins check`` lists them all.
"""

from maekit.testing.checks import (
    check_backbone,
    check_dataset,
    check_decoder,
    check_masker,
    check_target,
)
from maekit.testing.promises import BrokenPromiseError

__all__ = [
    "BrokenPromiseError",
    "check_backbone",
    "check_dataset",
    "check_decoder",
    "check_masker",
    "check_target",
]
