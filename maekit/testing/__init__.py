"""Checks that any part can be run against, built-in or from a plugin.

Each raises AssertionError with what a part does not keep of its contract (``maekit.contracts``);
none needs data or a GPU::

    from maekit.testing import check_masker

    def test_masker():
        check_masker(MyMasker(MyMasker.Options()))
"""

from maekit.testing.data import check_dataset
from maekit.testing.masks import check_masker
from maekit.testing.models import check_backbone, check_decoder, check_target

__all__ = ["check_backbone", "check_dataset", "check_decoder", "check_masker", "check_target"]
