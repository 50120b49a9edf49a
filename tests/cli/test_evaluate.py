"""``maekit evaluate``: classifiers of runs and of others, judged without training."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numerics import close, vit_terms
from PIL import Image
from small_recipes import VIDEOS, draw_sides, write_noise, write_recipe
from small_runs import VIEWED, result_of, stopped_after_shards

import maekit
from maekit.data.batch import PADDED
from maekit.engine.build import build_model
from maekit.engine.run_folder import read_lines
from maekit.evaluate import evaluation
from maekit.weights.header import Header
from maekit.weights.safetensors_io import model_tensors, write_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

SCRATCH = ("--from", "scratch")
SCORES = "predictions.jsonl"


def scores(run: str) -> list[dict[str, Any]]:
    return list(read_lines(Path(run, SCORES)))


@pytest.fixture
def tuned(cli: Cli, two: str) -> str:
    """Fine-tune on two classes."""
    words = ("finetune.steps=3", "finetune.ema=0.5", *SCRATCH)
    done = cli("finetune", two, *words, "--out", "tuned", "-q")
    assert done.code == 0, done.err
    return "tuned"


def test_a_run_is_judged_as_it_judged_itself(cli: Cli, tuned: str) -> None:
    done = cli("evaluate", tuned, "--out", "again", "--json")
    assert done.code == 0, done.err
    result, before = json.loads(done.out), result_of(tuned)
    same = ("top1", "top5", "single_view", "per_class", "floor", "protocol", "classes")
    for key in (*same, "calibration", "confused", "mistakes"):
        assert result[key] == before[key], key
    for name in ("confusion.csv", "confusion.png", "classes.csv", "mistakes.png"):
        assert Path("again", name).read_bytes() == Path(tuned, name).read_bytes(), name
    counts = np.loadtxt("again/confusion.csv", delimiter=",", skiprows=1, usecols=(1, 2))
    assert np.trace(counts) / counts.sum() == result["top1"]
    assert cli("report", tuned, "--out", "one.html").code == 0
    page = Path("one.html").read_text(encoding="utf-8")
    for text in ("Confusion matrix of", "Most wrong of", "weights from</th><td>scratch"):
        assert text in page.replace("<wbr>", ""), text
    assert scores("again") == scores(tuned)
    assert (result["verb"], result["exit"], result["samples"]) == ("evaluate", 0, 16)
    assert result == result_of("again")
    # The file in its run, and one that was moved out of it.
    shutil.copy(f"{tuned}/weights.safetensors", "alone.safetensors")
    inside = cli("evaluate", f"{tuned}/weights.safetensors", "--out", "inside", "-q")
    alone = cli("evaluate", "alone.safetensors", "--data", "pictures/val", "--out", "alone")
    assert (inside.code, alone.code) == (0, 0), alone.err
    assert scores("inside") == scores(tuned) == scores("alone")
    assert "no recipe: the center of each picture is judged" in alone.err
    assert "top1" in alone.out
    # Of a checkpoint the moving average is judged, as its run judged it.
    saved = f"{tuned}/checkpoints/step-00000003/model.safetensors"
    assert cli("evaluate", saved, "--out", "saved", "-q").code == 0
    assert scores("saved") == scores(tuned)
    side_by_side = cli("report", "again", tuned, "--out", "both.html")
    assert side_by_side.code == 0
    assert "does not predict labels" not in side_by_side.out
    assert result_of("alone")["protocol"] == "evaluate/1x1"


def test_other_samples_and_classes_by_name(cli: Cli, tuned: str) -> None:
    """A set that lacks a class, or has one that nobody knows."""
    right = sorted(Path("pictures/val/r").glob("*"))
    Path("only.csv").write_text("".join(f"{path} r\n" for path in right))
    done = cli("evaluate", tuned, "--data", "only.csv", "--out", "only-r", "--json")
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["per_class"]["l"] is None
    assert result["samples"] == 8
    assert {each["label"] for each in scores("only-r")} == {1}
    Path("only.csv").write_text(f"{right[0]} r\n{right[1]} strange\n")
    refused = cli("evaluate", tuned, "--data", "only.csv", "--out", "refused")
    assert refused.code == 6
    assert "1 classes are not among the model's 2: strange" in refused.err
    assert "one folder for each, or a list with them: l, r" in " ".join(refused.err.split())
    above = cli("evaluate", tuned, "--data", "pictures", "--out", "above")
    assert (above.code, "a list with them: l, r" in " ".join(above.err.split())) == (6, True)
    assert result_of("refused")["exit"] == 6


def test_what_cannot_be_judged_is_refused(cli: Cli, two: str) -> None:
    done = cli("pretrain", two, "pretrain.steps=1", "--out", "pre", "-q")
    assert done.code == 0, done.err
    probe = cli("probe", two, "--kind", "knn", "--from", "pre", "--out", "knn", "-q")
    assert probe.code == 0, probe.err
    cached = cli("evaluate", "knn", "--out", "x")
    assert cached.code == 2
    assert "left scores and no classifier" in cached.err
    none = cli("evaluate", "pre", "--data", "pictures/val", "--out", "x")
    assert none.code == 3
    assert "hold no classifier" in none.err
    assert cli("evaluate", "absent.pth", "--data", "pictures/val").code == 2
    assert not Path("x").exists()


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_probe_of_cached_features_leaves_a_classifier(cli: Cli, two: str, pool: str) -> None:
    """It says of data.val what the probe said, is asked, and written as ONNX."""
    words = (two, *SCRATCH, f"probe.pool={pool}")
    done = cli("probe", *words, "--out", "probed", "-q")
    assert done.code == 0, done.err
    assert cli("evaluate", "probed", "--out", "again", "-q").code == 0
    before, result = result_of("probed"), result_of("again")
    for key in ("top1", "top5", "per_class"):
        assert result[key] == before[key], key
    for ours, theirs in zip(scores("again"), scores("probed"), strict=True):
        close(ours["scores"], theirs["scores"], terms=vit_terms(192, 32, 2, 17))
    asked = cli("predict", "pictures/val", "--from", "probed", "--out", "asked.csv")
    assert asked.code == 0, asked.err
    assert len(Path("asked.csv").read_text().splitlines()) == 1 + len(scores("again"))
    if pool == "mean":  # its norm stands before the pooling: test_hand_over.py has the others
        written = cli("weights", "convert", "probed", "probed.onnx", "--to", "onnx")
        assert written.code == 0, written.err
    inner = cli("probe", *words, "probe.layer=1", "--out", "inner", "-q")
    assert inner.code == 0, inner.err
    assert cli("predict", "pictures/val", "--from", "inner").code == 2


def official(cli: Cli, path: str, side: int = 32) -> None:
    """Write a fine-tuned file as facebookresearch/mae's code does, with two outputs."""
    backbone = {"name": "image-vit", "size": "tiny", "depth": 1, "heads": 3, "patch": 8}
    header = Header(
        backbone=backbone, clip=(1, side, side), channels=3,
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225),
    )  # fmt: skip
    write_weights(Path("encoder.safetensors"), model_tensors(build_model(header)), header)
    assert cli("weights", "convert", "encoder.safetensors", path, "--to", "mae").code == 0
    state = torch.load(path)["model"]
    for kind in ("weight", "bias"):
        state[f"fc_norm.{kind}"] = state.pop(f"norm.{kind}")
    torch.manual_seed(0)
    state["fc_norm.weight"] = 1 + torch.randn(192) / 4
    state |= {"head.weight": torch.randn(2, 192), "head.bias": torch.zeros(2)}
    torch.save({"model": state, "epoch": 99}, path)


def test_an_official_file_in_python_and_by_hand(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    official(cli, "official.pth")
    draw_sides(tmp_path / "pictures", 6, seed=3)
    for path in Path("pictures").glob("*/*.png"):  # as large as the model wants them
        Image.open(path).resize((32, 32)).save(path)
    words = ("finetune.views.enlarge=1", "data.workers=0")
    done = cli("evaluate", "official.pth", *words, "--data", "pictures", "--out", "run", "--json")
    assert done.code == 0, done.err
    assert "the weights do not name their 2 classes" in done.err
    model, _ = maekit.load_classifier("official.pth")
    right = 0
    for each in scores("run"):
        pixels = torch.from_numpy(np.array(Image.open(each["id"]))).permute(2, 0, 1) / 255
        with torch.no_grad():
            likely = model(model.normalize(pixels[None, :, None])).softmax(-1)[0]
        np.testing.assert_allclose(each["scores"], likely, atol=1e-5)
        assert each["label"] == "lr".index(Path(each["id"]).parent.name)
        right += int(likely.argmax()) == each["label"]
    result = json.loads(done.out)
    assert result["top1"] == right / 6
    assert set(result["per_class"]) == {"l", "r"}
    # Names in another order swap the labels; a third class is no output's.
    swapped = maekit.run(
        None, "evaluate", source="official.pth", classes=["r", "l"], out="swapped",
        overrides=[*words, "data.val.path=pictures"],
    )  # fmt: skip
    assert swapped["top1"] == 1 - result["top1"]
    Path("pictures/z").mkdir()
    shutil.copy(next(Path("pictures").glob("l/*")), "pictures/z/z.png")
    refused = cli("evaluate", "official.pth", "--data", "pictures", "--out", "three")
    assert refused.code == 6
    assert "--classes FILE" in refused.err
    unnamed = cli("evaluate", "official.pth")
    assert unnamed.code == 2
    assert "--data FOLDER" in unnamed.err
    by_number = Path("list.csv")
    rows = [f"{each['id']} {each['label']}\n" for each in scores("run")]
    by_number.write_text("".join(rows))
    again = cli("evaluate", "official.pth", *words, "--data", "list.csv", "--out", "list", "-q")
    assert again.code == 0, again.err
    assert result_of("list")["top1"] == result["top1"]


def test_videos_by_many_views_and_resumed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        write_noise(Path("clips", "ab"[number % 2], f"{number}.mp4"), (5, 15, 4, 19)[number])
    recipe = write_recipe(tmp_path / "judged.yaml", VIDEOS, VIEWED)
    assert cli("finetune", recipe, *SCRATCH, "--out", "tuned", "-q").code == 0
    before = result_of("tuned")
    monkeypatch.setattr(evaluation, "SHARD_SIZE", 2)
    made = stopped_after_shards(monkeypatch, 1)
    first = cli("evaluate", "tuned", "--out", "run")
    assert first.code == 75
    typed = re.search(r"continue with maekit (.+)", first.err.replace("\n", " "))
    assert typed is not None
    other = cli("evaluate", "tuned", "--views", "1x1", "--out", "run", "--resume")
    assert other.code == 2
    done = cli(*shlex.split(typed[1]))
    assert done.code == 0, done.err
    assert made == [0, 1]
    result = result_of("run")
    assert result["protocol"] == before["protocol"] == "finetune/all/2x3"
    # Also of the shard that was there.
    assert result["left_out"]["data.val"] == before["left_out"]["data.val"] == {PADDED: 2}
    for key in ("top1", "top5", "single_view"):
        assert result[key] == before[key]
    for ours, theirs in zip(scores("run"), scores("tuned"), strict=True):
        assert ours.keys() == theirs.keys()
        np.testing.assert_allclose(ours["scores"], theirs["scores"], atol=2e-6)
    assert not Path("run/scores").exists()
    assert "one view: top1" in done.out
    one = cli("evaluate", "tuned", "--views", "1x1", "--out", "one", "-q", "--json")
    assert json.loads(one.out)["top1"] == before["single_view"]["top1"]
    assert cli("evaluate", "tuned", "--views", "5", "--out", "bad").code == 2


def test_a_share_of_data_train_is_judged_again_and_other_files_instead(cli: Cli, two: str) -> None:
    share = "data.val={split: 0.25}"
    words = (share, "finetune.steps=2", *SCRATCH)
    assert cli("finetune", two, *words, "--out", "split", "-q").code == 0
    done = cli("evaluate", "split", "--out", "again", "-q", "--json")
    assert done.code == 0, done.err
    assert scores("again") == scores("split")
    assert json.loads(done.out)["top1"] == result_of("split")["top1"]
    other = cli("evaluate", "split", "--data", "pictures/val", "--out", "other", "-q")
    assert other.code == 0, other.err
    assert {Path(each["id"]).parents[1].name for each in scores("other")} == {"val"}


def test_a_share_of_clips_gives_its_stride_to_other_files(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        write_noise(Path("clips", "ab"[number % 2], f"{number}.mp4"), 15)
    recipe = write_recipe(tmp_path / "judged.yaml", VIDEOS, VIEWED, without=("data.val",))
    words = ("data.val={split: 0.5, max_bad_fraction: 0.5}", *SCRATCH, "--out", "tuned", "-q")
    done = cli("finetune", recipe, *words)
    assert done.code == 0, done.err
    done = cli("evaluate", "tuned", "--data", "clips", "--out", "all", "-q")
    assert done.code == 0, done.err
    assert result_of("all")["settings"]["stride"] == 2
    known = {each["id"]: each["scores"] for each in scores("all")}
    assert all(known[each["id"]] == each["scores"] for each in scores("tuned"))


def test_scores_outlive_a_sample_that_cannot_be_read(
    cli: Cli, tuned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --out, too; a set that is not there leaves no numbered folder."""
    monkeypatch.setattr(evaluation, "SHARD_SIZE", 4)
    last = max(Path("pictures/val/r").glob("*"))
    whole = last.read_bytes()
    last.write_bytes(bytes(len(whole)))  # of another size it would be another set
    done = cli("evaluate", tuned)
    assert done.code == 6
    assert sorted(Path("runs/two/1/scores").glob("*.npz"))
    last.write_bytes(whole)
    again = cli("evaluate", tuned, "--out", "runs/two/1", "--resume", "-q")
    assert again.code == 0, again.err
    assert scores("runs/two/1") == scores(tuned)
    assert cli("evaluate", tuned, "--data", "absent").code in (2, 6)
    assert not Path("runs/two/2").exists()


def test_labels_that_a_head_does_not_know_are_said_to_be_the_sets(cli: Cli, two: str) -> None:
    rows = [f"pictures/train/{k}/{each.name} {k}" for k in "lr" for each in
            sorted(Path("pictures/train", k).glob("*"))]  # fmt: skip
    rows[0] += "|r"
    Path("many.txt").write_text("\n".join(rows))
    sets = ("data.train.path=many.txt", "data.val.path=many.txt")
    words = (*sets, "finetune.head.kind=multilabel", "finetune.steps=1", *SCRATCH)
    done = cli("finetune", two, *words, "--out", "many", "-q")
    assert done.code == 0, done.err
    Path("strange.txt").write_text("\n".join([*rows, rows[1] + "|owl"]))
    refused = cli("evaluate", "many", "--data", "strange.txt", "--out", "x")
    assert refused.code == 6
    assert "labels that are not among the model's 2: owl" in refused.err


@pytest.mark.usefixtures("embed_here")
def test_what_other_verbs_take_of_a_classifier(
    cli: Cli, tmp_path: Path, two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embed gives what the head gets; pre-training says that its decoder is a fresh one."""
    official(cli, "official.pth", side=32)
    draw_sides(tmp_path / "set", 2, seed=5)
    done = cli("embed", "set", "--from", "official.pth", "--out", "e.npz")
    assert done.code == 0, done.err
    assert "what the classifier's head gets (mean)" in done.err
    made = np.load("e.npz")
    model, _ = maekit.load_classifier("official.pth")
    norm = maekit.load("official.pth").backbone.last_norm()
    assert model.fc_norm is not None
    assert norm is not None
    assert torch.equal(norm.state_dict()["weight"], model.fc_norm.weight)
    seen: list[torch.Tensor] = []
    features = type(model).features

    def noting(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return features(self, pixels)

    monkeypatch.setattr(type(model), "features", noting)
    again = cli("embed", "set", "--from", "official.pth", "--out", "again.npz", "--pool", "mean")
    assert again.code == 0
    with torch.inference_mode():
        found = features(model, seen[0])
    np.testing.assert_allclose(made["features"], found, atol=1e-5)
    assert np.array_equal(made["features"], np.load("again.npz")["features"])
    other = cli("embed", "set", "--from", "official.pth", "--out", "cls.npz", "--pool", "cls")
    assert other.code == 0
    assert "trained on pool mean, not on cls" in other.err
    small = ("model.backbone.width=192", "model.backbone.heads=3", "model.backbone.depth=1")
    words = (two, *small, "data.size=32", "pretrain.steps=1", "--from", "official.pth")
    started = cli("pretrain", *words, "--out", "pre")
    assert started.code == 0, started.err
    assert "a classifier: the encoder with its head, without a decoder" in started.err
    assert "decoder: none to a fresh one" in started.err
    tuned = cli("finetune", *words[:-2], "finetune.steps=1", "--from", "official.pth",
                "--out", "more")  # fmt: skip
    assert tuned.code == 0, tuned.err
    assert "a classifier's encoder is taken, without its head" in tuned.err
