"""A few damaged inputs of each kind in every run of the tests; many by the script."""

from __future__ import annotations

import pytest
from fuzz import READERS, fuzz

CASES = {"recipe": 40, "lists": 150, "weights": 60, "report": 40, "checkpoints": 40}


@pytest.mark.parametrize("reader", READERS)
def test_damaged_input_is_read_or_refused(reader: str) -> None:
    found = fuzz(reader, CASES[reader], seed=1)
    assert not found.faults
    assert found.memory < 1
