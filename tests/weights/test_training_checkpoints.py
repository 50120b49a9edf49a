"""Checkpoints as the four official pre-trainings leave them: whole, with all that lies beside.

The entries and their types are those of the code that writes them: facebookresearch/mae
util/misc.py (run through submitit_pretrain.py, whose paths are pathlib's), MCG-NJU/VideoMAE
utils.py (rates from numpy: engine_for_pretraining.py), facebookresearch/mae_st util/misc.py,
OpenGVLab/VideoMAEv2 utils.py (compiled models), and DeepSpeed's engine.py, ``save_checkpoint``.
"""

from __future__ import annotations

import argparse
import collections
import os
import pathlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official import TINY, TINY_DECODER, State, mae, mae_st, videomae

from maekit.errors import WeightsError
from maekit.weights.hints import UserHints
from maekit.weights.importer import Weights, open_weights

Content = dict[str, Any]
GIVEN = UserHints(heads=4, decoder_heads=2, clip=(4, 32, 32))
PICTURES = UserHints(heads=4, decoder_heads=2)


def optimizer(state: State, rate: Any, **more: Any) -> Content:
    """AdamW's state dict over all parameters; ``rate`` as the training loop left it."""
    names = list(state)
    moments = {
        number: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(2), "exp_avg_sq": torch.ones(2)}
        for number in range(len(names))
    }
    group = {
        "lr": rate, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.05, "amsgrad": False,
        "foreach": None, "capturable": False, "params": list(range(len(names))),
    }  # fmt: skip
    return {"state": moments, "param_groups": [group | more]}


SCALER = {
    "scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000,
    "_growth_tracker": 7,
}  # fmt: skip


def of_mae(state: State) -> Content:
    args = argparse.Namespace(
        batch_size=64, epochs=800, input_size=32, mask_ratio=0.75, norm_pix_loss=True,
        lr=0.0024, blr=1.5e-4, output_dir=pathlib.PosixPath("/checkpoint/1"),
        log_dir=pathlib.PosixPath("/checkpoint/1"), job_dir="/checkpoint/%j", gpu=0, rank=0,
        dist_url="file:///checkpoint/init", device="cuda", resume="", world_size=64,
    )  # fmt: skip
    return {
        "model": state, "optimizer": optimizer(state, 1e-5), "epoch": 799, "scaler": SCALER,
        "args": args,
    }  # fmt: skip


def of_videomae(state: State) -> Content:
    args = argparse.Namespace(
        batch_size=32, epochs=801, mask_type="tube", mask_ratio=0.9, input_size=32,
        normlize_target=True, opt="adamw", opt_betas=[0.9, 0.95], lr=np.float64(1.2e-3),
        min_lr=8e-5, num_frames=4, sampling_rate=4, window_size=(2, 4, 4), patch_size=(8, 8),
        data_path="train.csv", output_dir="/out", weight_decay_end=0.05,
    )  # fmt: skip
    rates = {"weight_decay": np.float64(0.05), "lr_scale": 1.0}
    return {
        "model": state, "optimizer": optimizer(state, np.float64(1.1e-3), **rates), "epoch": 19,
        "scaler": SCALER, "args": args,
    }  # fmt: skip


def of_videomae_with_average(state: State) -> Content:
    """``--model_ema``, whose copy has other numbers."""
    return of_videomae(state) | {"model_ema": {name: t + 1 for name, t in state.items()}}


def of_videomae_v2(state: State) -> Content:
    """``torch.compile`` leaves its name before every key."""
    content = of_videomae({f"_orig_mod.{name}": tensor for name, tensor in state.items()})
    vars(content["args"]).update(decoder_mask_type="run_cell", decoder_mask_ratio=0.5, num_sample=4)
    return content


def of_mae_st(state: State) -> Content:
    args = argparse.Namespace(
        batch_size=2, epochs=100, num_frames=4, pred_t_dim=2, t_patch_size=2, input_size=32,
        norm_pix_loss=True, repeat_aug=4, sampling_rate=4, clip_grad=0.02, fp32=True,
        jitter_scales_relative=[0.5, 1.0], output_dir="/out", decoder_embed_dim=32,
    )  # fmt: skip
    return {
        "model": state, "optimizer": optimizer(state, 1e-3), "epoch": 99, "scaler": SCALER,
        "args": args,
    }  # fmt: skip


def of_deepspeed(state: State) -> Content:
    """mp_rank_00_model_states.pt, with the client's own entries."""
    shapes = collections.OrderedDict((name, tensor.shape) for name, tensor in state.items())
    return {
        "module": {name: tensor.half() for name, tensor in state.items()}, "buffer_names": [],
        "optimizer": {
            "dynamic_loss_scale": True, "cur_scale": 65536.0, "cur_iter": 4,
            "last_overflow_iter": 1, "scale_factor": 2.0, "scale_window": 128, "clip_grad": 0.0,
            "optimizer_state_dict": optimizer(state, np.float64(1e-3)),
            "fp32_groups_flat": [torch.zeros(9), torch.zeros(3)],
        },
        "param_shapes": [shapes], "frozen_param_shapes": None, "shared_params": {},
        "frozen_param_fragments": None, "lr_scheduler": None, "data_sampler": None,
        "random_ltd": None, "sparse_tensor_module_names": set(), "skipped_steps": 2,
        "global_steps": 400, "global_samples": 204800, "dp_world_size": 64, "mp_world_size": 1,
        "ds_config": {"train_batch_size": 512, "fp16": {"enabled": True}}, "ds_version": "0.5.8",
        "epoch": 9, "model_ema": {name: tensor + 1 for name, tensor in state.items()},
    }  # fmt: skip


CLIPS: State = videomae(**TINY, **TINY_DECODER)
MAE_ST = {
    name: t[:, :2] if "temporal" in name else t
    for name, t in mae_st(**TINY, **TINY_DECODER).items()
}
Case = tuple[State, Callable[[State], Content], UserHints, dict[str, Any] | None]
JOINT, APART = (
    {"statistics": "joint", "eps": "inside"},
    {"statistics": "per-channel", "eps": "outside"},
)
CASES: dict[str, Case] = {
    "mae": (mae(**TINY, **TINY_DECODER), of_mae, PICTURES, JOINT | {"frames": "same"}),
    "videomae": (CLIPS, of_videomae, GIVEN, APART),
    "videomae, averaged": (CLIPS, of_videomae_with_average, GIVEN, APART),
    "videomae v2": (CLIPS, of_videomae_v2, GIVEN, APART),
    "mae_st": (MAE_ST, of_mae_st, PICTURES, JOINT | {"frames": 2}),
    # DeepSpeed keeps no arguments: nothing says what is predicted.
    "deepspeed": (CLIPS, of_deepspeed, GIVEN, None),
}


def opened(content: Content, given: UserHints, folder: Path) -> Weights:
    torch.save(content, folder / "checkpoint-19.pth")
    return open_weights(folder / "checkpoint-19.pth", user_hints=given)


@pytest.mark.parametrize("name", CASES)
def test_a_training_checkpoint_loads_as_its_weights_alone(name: str, tmp_path: Path) -> None:
    state, make, given, target = CASES[name]
    found = opened(make(state), given, tmp_path)
    (tmp_path / "alone").mkdir()
    alone = opened(state, given, tmp_path / "alone")
    assert found.report.matched == len(state)
    assert found.tensors.keys() == alone.tensors.keys()
    for key, tensor in found.tensors.items():
        assert torch.equal(tensor.float(), alone.tensors[key].to(tensor.dtype).float()), key
    for key in ("backbone", "decoder", "clip"):
        assert getattr(found.header, key) == getattr(alone.header, key)
    if target is None:
        assert found.header.target is None
    else:
        assert found.header.target is not None
        assert found.header.target.name == "norm-pixel"
        assert target.items() <= found.header.target.written.items()
    left = next(note for note in found.report.notes if note.startswith("not weights"))
    assert "optimizer" in left
    if "averaged" in name:
        assert "model_ema" in left


@pytest.mark.parametrize("name", CASES)
def test_one_key_off_is_named_within_all_that(name: str, tmp_path: Path) -> None:
    state, make, given, _ = CASES[name]
    first, last = sorted(state)[:: len(state) - 1]
    less = {each: tensor for each, tensor in state.items() if each != first}
    more = state | {f"{last}_ema": state[last]}
    for content, off in ((make(less), first), (make(more), f"{last}_ema")):
        with pytest.raises(WeightsError, match=rf"(^|[ .]){re.escape(off)}\b") as refused:
            opened(content, given, tmp_path)
        assert refused.value.exit_code == 3


class Runs:
    """Pickled, it asks for a call."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def _in_rates(content: Content) -> None:
    found = content["optimizer"]
    found.get("optimizer_state_dict", found)["param_groups"][0]["lr"] = Runs()


def _in_arguments(content: Content) -> None:
    content["args"] = argparse.Namespace(input_size=32, output_dir=Runs())


def _beside(content: Content) -> None:
    content["epoch"] = Runs()


@pytest.mark.parametrize("put", [_in_rates, _in_arguments, _beside])
@pytest.mark.parametrize("name", CASES)
def test_what_would_run_is_refused_wherever_it_lies(
    name: str, put: Callable[[Content], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state, make, given, _ = CASES[name]
    content = make(state)
    put(content)
    with pytest.raises(WeightsError, match=r"would call .*mkdir, which is code"):
        opened(content, given, tmp_path)
    assert not (tmp_path / "ran").exists()
