"""The benchmarks run, and count as they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu, images, run, scaling, steps, videos
from benchmarks.sides import Group, compare


def test_turns_and_ratios() -> None:
    now = 0.0
    turns: list[str] = []

    def work(name: str, seconds: float) -> object:
        def once(_: int) -> None:
            nonlocal now
            now += seconds
            turns.append(name)

        return once

    sides = {"ours": work("ours", 2.0), "theirs": work("theirs", 3.0), "slow": work("slow", 8.0)}
    found = compare(Group("g", "ms", sides, clock=lambda: now), pairs=4)  # type: ignore[arg-type]
    assert {name: side["ratio"] for name, side in found["sides"].items()} == {
        "ours": 1.0, "theirs": 1.5, "slow": 4.0,
    }  # fmt: skip
    assert found["sides"]["slow"]["median"] == 8000
    assert turns[3:9] == ["ours", "theirs", "slow", "theirs", "slow", "ours"]  # none is always last


def test_images_in_one_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    run.main(["--only", "images", "--pairs", "1", "--samples", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    (group,) = found["groups"].values()
    assert group["sides"]["maekit"]["ratio"] == 1.0
    assert group["facts"]["pixels"].startswith(("at most 0 of 255", "at most 1 of 255"))
    assert found["commit"]
    assert found["machine"]["cores"]
    assert "| maekit |" in out.with_suffix(".md").read_text() == capsys.readouterr().out


def test_work_may_tell_its_own_seconds() -> None:
    group = Group("g", "s", {"ours": lambda _: 2.0, "theirs": lambda _: 5.0}, scale=1)
    found = compare(group, pairs=2)["sides"]
    assert [found[name]["median"] for name in ("ours", "theirs")] == [2, 5]
    assert found["theirs"]["ratio"] == 2.5


@pytest.mark.slow
def test_videos(tmp_path: Path) -> None:
    for group in videos.groups(tmp_path, samples=1):
        assert group.facts["frames equal a plain decode"]
        assert compare(group, 1)["sides"]["maekit"]["ratio"] == 1.0
    assert images.photo(8, 9, 0).shape == (8, 9, 3)


SMALL = ("model.backbone={size: tiny, width: 48, depth: 1, heads: 3}",)
SMALL += ("model.decoder={width: 48, depth: 1, heads: 3}",)
SIZES = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 3}
SIZES |= {"intermediate_size": 192, "decoder_hidden_size": 48, "decoder_num_hidden_layers": 1}
SIZES |= {"decoder_num_attention_heads": 3, "decoder_intermediate_size": 192}


@pytest.mark.slow
@pytest.mark.parametrize("kind", steps.KINDS)
def test_steps_of_small_models(kind: str) -> None:
    """Both sides train a model of the same size: theirs has a few buffers and biases besides."""
    for group in steps.groups(batches={kind: 1}, words=SMALL, sizes=SIZES):
        ours, theirs = (
            sum(p.numel() for p in side.model.parameters() if p.requires_grad)
            for side in group.work.values()
        )
        assert ours == pytest.approx(theirs, rel=0.02)
        found = compare(group, 1)
        assert found["facts"]["flops of a step"] > 1e7
        assert min(found["facts"]["peak bytes of a forward and backward pass"].values()) > 1e5


@pytest.mark.slow
def test_a_step_against_its_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    few = [each for each in scaling.points() if each.axis == "visible tokens"][:2]
    small = [each._replace(words=(*each.words, *SMALL), batch=1) for each in few]
    monkeypatch.setattr(scaling, "points", lambda: small)
    rows = scaling.table(rounds=1)
    assert [row["value"] for row in rows] == [49, 20]
    assert rows[0]["gflop"] > rows[1]["gflop"]
    assert rows[0]["beyond"] == 0
    scaling.plot(rows, str(tmp_path / "sizes.png"))
    assert (tmp_path / "sizes.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_gpu_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here on a CPU, by a small model; a part that fails is told, and the others go on."""
    monkeypatch.setattr(gpu, "MODELS", {"small": ("mae_in1k_vit_b", 2), "none": ("nowhere", 2)})
    plain = gpu.measure
    monkeypatch.setattr(gpu, "measure", lambda *args, **more: plain(*args, **more, words=SMALL))
    out = tmp_path / "results" / "gpu.json"
    gpu.main(["--only", "steps", "--steps", "2", "--out", str(out)])
    parts = json.loads(out.read_text())["parts"]
    assert parts["small"]["samples_per_second"] == pytest.approx(2e3 / parts["small"]["step_ms"])
    assert parts["small"]["times_plain_eager_fp16"] > 0
    assert 0 < parts["small"]["mfu"] < 2
    assert "nowhere" in parts["none"]["error"]
    ours = steps.Ours("mae_in1k_vit_b", "fp32", 1, SMALL)
    sizes = [
        sum(p.numel() for p in each.parameters()) for each in (ours.model, gpu.Plain(ours.model))
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)
