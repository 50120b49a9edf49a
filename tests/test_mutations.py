"""The mistakes of ``tests/mutations.py`` can still be made; making them takes an hour, by hand."""

from __future__ import annotations

from mutations import MUTATIONS, ROOT


def test_every_mistake_can_be_made() -> None:
    """Its text stands once in maekit/, and the tests that should notice are there."""
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("maekit/**/*.py")]
    names = {path.name for path in ROOT.glob("tests/**/test_*.py")}
    for mutation in MUTATIONS:
        assert sum(text.count(mutation.old) for text in texts) == 1, mutation.name
        assert names.issuperset(mutation.tests), mutation.name
