"""Headers of weights files as earlier commits wrote them still describe the same model.

``older_headers.json`` was written at cdf5116, before British spellings were replaced.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from maekit.engine.build import build_model, compatible_header
from maekit.weights.safetensors_io import KEY, read_header

HEADERS: dict[str, Any] = json.loads(
    Path(__file__).with_name("older_headers.json").read_text(encoding="utf-8")
)
SINCE = {
    "norm_eps": (None, 1e-6),
    "last_norm_eps": (None,),
    "resize_positions": ("resample",),
    "roi": (None,),
}
SPELLED = {"normalised": "normalized", "centre": "center"}


@pytest.mark.parametrize("name", HEADERS)
def test_an_older_header_describes_the_same_model(name: str, tmp_path: Path) -> None:
    older = HEADERS[name]
    path = tmp_path / "weights.safetensors"
    save_file({}, path, {KEY: json.dumps(older)})
    header = read_header(path)
    assert (header.license, header.source) == ("CC0", name)
    agreed = compatible_header(header, header, name).header
    with torch.device("meta"):
        model = build_model(agreed)
    assert tuple(model.grid) == tuple(older["grid"])
    written = json.loads(agreed.model_dump_json())
    for part in ("backbone", "decoder", "target", "masker", "classifier"):
        expected = older[part]
        if expected is not None:
            expected = {key: SPELLED.get(str(each), each) for key, each in expected.items()}
            kept = {key: written[part][key] for key in expected}
            assert kept == expected, part
            # What has come since does nothing where it is not set.
            for key in written[part].keys() - expected.keys():
                assert written[part][key] in SINCE[key], part
        else:
            assert written[part] is None
