"""A file that lacks one key, or spells one otherwise, is refused with that key named."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from official import TINY, TINY_DECODER, State, mae, mae_st, videomae, videomae_encoder

from maekit.errors import WeightsError
from maekit.weights.foreign import ForeignCheckpoint
from maekit.weights.hints import UserHints
from maekit.weights.importer import read_foreign

HEADS = UserHints(heads=4, decoder_heads=2)


@cache
def state_of(kind: str) -> State:
    """Return the keys and tensors of one layout; those of the installed transformers' modules."""
    if kind != "hf modules":
        return STATES[kind]
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        image_size=32, patch_size=8,
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=192,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=2,
        decoder_intermediate_size=128,
    )  # fmt: skip
    CONFIGS[kind] = config.to_dict()
    return dict(ViTMAEForPreTraining(config).state_dict())


CONFIGS: dict[str, dict[str, Any]] = {}


STATES: dict[str, State] = {
    "mae": mae(**TINY, **TINY_DECODER),
    "mae encoder": {f"module.{k}": v for k, v in mae(**TINY).items()},
    "videomae": videomae(**TINY, **TINY_DECODER),
    "videomae encoder": videomae_encoder(**TINY),
    "mae_st": mae_st(**TINY, **TINY_DECODER),
}


def refusal(state: State, kind: str) -> str:
    found = ForeignCheckpoint(state, "weights", config=CONFIGS.get(kind, {}))
    with pytest.raises(WeightsError) as caught:
        read_foreign(found, HEADS)
    assert caught.value.exit_code == 3
    return str(caught.value)


def names(key: str, message: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.]|$)", f"{message} ") is not None


@pytest.mark.parametrize("kind", [*STATES, "hf modules"])
@settings(max_examples=15)
@given(data=st.data())
def test_one_key_off(kind: str, data: st.DataObject) -> None:
    state = dict(state_of(kind))
    key = data.draw(st.sampled_from(sorted(state)))
    tensor = state.pop(key)
    assert names(key, refusal(state, kind))
    place = data.draw(st.integers(0, len(key)))
    renamed = key[:place] + data.draw(st.sampled_from("xq7")) + key[place:]
    if renamed in state_of(kind):
        return
    state[renamed] = tensor
    message = refusal(state, kind)
    assert names(key, message)
