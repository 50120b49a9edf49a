"""What a resumed run is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from maekit.engine.resume import check_source, record_source
from maekit.errors import RecipeError


@pytest.mark.parametrize("source", ["scratch", "timm:vit_tiny_patch16_224", "runs/a", "hf:folder"])
def test_weights_are_known_by_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    record_source(tmp_path, source)
    check_source(tmp_path, source)
    monkeypatch.chdir(tmp_path / "elsewhere")
    if source.startswith(("scratch", "timm:")):
        check_source(tmp_path, source)
    else:
        with pytest.raises(RecipeError, match="this run started from"):
            check_source(tmp_path, source)
        check_source(tmp_path, source.replace("runs", "../runs").replace("folder", "../folder"))
