"""The small model that comes with the package; its recipe says how it was trained."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).with_name("weights.safetensors")
