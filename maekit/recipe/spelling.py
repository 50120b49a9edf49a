"""Values that recipes and weights' headers once spelled the British way."""

from __future__ import annotations

AMERICAN = {"centre": "center", "normalised": "normalized"}


def american(value: object) -> object:
    """Return an option's value in today's spelling, for a Pydantic ``BeforeValidator``."""
    return AMERICAN.get(value, value) if isinstance(value, str) else value
