"""Errors within parts: what is said besides."""

from __future__ import annotations

import pytest

from maekit.origin import Origin


@pytest.mark.parametrize(
    ("error", "meta"),
    [
        (RuntimeError("Tensor.item() cannot be called on meta tensors"), True),
        (NotImplementedError("Cannot copy out of meta tensor; no data!"), True),
        (KeyError("metadata"), False),
        (ValueError("the metaphor of the parameters"), False),
        (OSError("no file meta.json"), False),
    ],
)
def test_the_meta_device_is_named_for_its_own_errors_only(error: Exception, meta: bool) -> None:
    named = Origin("target", "odd", "maekit-odd", "0.1").named(error)
    assert ("meta device" in (getattr(named, "hint", None) or "")) == meta
