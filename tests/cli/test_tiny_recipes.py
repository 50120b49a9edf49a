"""The tiny recipes on real data, cut shorter: what was learned shows early."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_process import run


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_pictures_learned_from_beat_both_floors(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "tiny-imagenet-20"
    words = ("tiny_images", f"data.train.path={data / 'train'}", f"data.val.path={data / 'val'}")
    cut = ("pretrain.steps=400", "pretrain.warmup.steps=40", "~pretrain.online_probe")
    run(tmp_path, "pretrain", *words, *cut, "--out", "learned")
    found = run(tmp_path, "probe", *words, "--kind", "knn", "--from", "learned")
    assert found["top1"] > max(found["floor"].values()) + 0.02


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_clips_learned_from_make_fine_tuning_faster(shared_data: Path, tmp_path: Path) -> None:
    """The same few epochs with and without pre-training, paired by clip.

    Pre-training itself is not cut: after 600 of its 2,000 steps it makes no difference yet.
    """
    data = shared_data / "motion8"
    words = ("tiny_videos", f"data.train.path={data / 'train.txt'}")
    words = (*words, f"data.val.path={data / 'val.txt'}")
    run(tmp_path, "pretrain", *words, "~pretrain.online_probe", "--out", "learned")
    for name in ("scratch", "learned"):
        few = ("finetune.epochs=8", "--from", name, "--out", f"tuned-{name}")
        run(tmp_path, "finetune", *words, *few)
    (pair,) = run(tmp_path, "report", "tuned-scratch", "tuned-learned")["paired"]
    assert pair["difference"] > 2 * pair["error"] > 0
