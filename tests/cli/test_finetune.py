"""``maekit finetune`` from the command line: learning, weights, refusals, going on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_recipes import draw_sides
from small_runs import losses, result_of, same_weights, weights

import maekit
from maekit.engine.run_folder import read_lines
from maekit.evaluate.supervision import FinetuneStep
from maekit.recipe.load import load

if TYPE_CHECKING:
    from conftest import Result

    Cli = Callable[..., Result]

SCRATCH = ("--from", "scratch")
PLAIN = [
    "~finetune.rand_augment",
    *(f"finetune.{key}=0" for key in ("erase", "mixup", "cutmix", "label_smoothing")),
    "finetune.augment.name=none",
]


def test_two_classes_are_learned_from_a_pre_training_found_by_itself(cli: Cli, two: str) -> None:
    assert cli("pretrain", two, "-q").code == 0
    words = [*PLAIN, "finetune.steps=60", "finetune.validate.every=30"]
    done = cli("finetune", two, *words)
    assert done.code == 0, done.err
    assert "runs/two/1, the newest finished pre-training run of two" in done.err
    assert "2 classes, 40 samples to train on (20 a class), 16 to judge (8 a class)" in done.err
    assert done.err.count(".png: l") + done.err.count(".png: r") == 5
    result = result_of("runs/two/2")
    assert (result["verb"], result["exit"], result["steps"], result["samples"]) == (
        "finetune", 0, 60, 480,
    )  # fmt: skip
    assert result["top1"] >= 0.9 > result["floor"]["chance"] == 0.5
    assert result["single_view"]["top1"] == result["top1"]
    assert np.mean(list(result["per_class"].values())) == pytest.approx(result["top1"])
    assert result["top5"] == 1
    assert result["loss_last"] < 0.5 < result["loss_first"]
    assert result["protocol"] == "finetune/all/1x1"
    assert result["from"] == "runs/two/1"
    assert result["best"]["top1"] >= result["top1"]
    assert f"step-{result['best']['step']:08d}" == Path("runs/two/2/checkpoints/best").read_text()
    rows = list(read_lines(Path("runs/two/2/predictions.jsonl")))
    right = [row["label"] == int(np.argmax(row["scores"])) for row in rows]
    assert np.mean(right) == pytest.approx(result["top1"])
    assert [row["row"] for row in rows] == list(range(16))
    loaded = maekit.load_classifier("runs/two/2")
    model, header = loaded
    assert (loaded[0], loaded[-1], len(loaded)) == (model, header, 2)
    assert header.classifier is not None
    assert header.classifier.outputs == ("l", "r")
    file = Path(rows[0]["id"])
    image = torch.from_numpy(np.array(Image.open(file).resize((24, 16), Image.Resampling.BICUBIC)))
    pixels = model.normalize(image.permute(2, 0, 1)[None, :, None] / 255)
    with torch.no_grad():
        scores = model(pixels).softmax(1)[0].tolist()
    assert scores == pytest.approx(rows[0]["scores"], abs=0.02)
    assert maekit.load("runs/two/2").encode(pixels).shape == (1, 7, 32)


def test_without_weights_three_ways_are_named_and_no_folder_is_made(cli: Cli, two: str) -> None:
    refused = cli("finetune", two)
    assert refused.code == 2
    assert "no finished pre-training run of two" in refused.err
    for way in (
        "maekit pretrain two",
        "--from RUN, FILE, timm:NAME or hf:FOLDER",
        "--from scratch",
    ):
        assert way in refused.err
    assert not Path("runs").exists()


def test_what_cannot_be_learned_is_refused_before_the_first_step(cli: Cli, two: str) -> None:
    cases = {
        "~data.val": (2, "judged on data.val"),
        "finetune.head.classes=1000": (6, "data.train has 2 classes"),
        "data.train.path=pictures/train/l": (6, "no labels"),
        "data.train={name: images, path: pictures/train/l, labels: none}": (6, "no labels"),
        "finetune.pool=cls": (2, "no class token"),
        "finetune.rand_augment=rand-m9-x3": (2, "rand_augment"),
        "finetune.rand_augment=rand-m9-tweird": (2, "rand_augment"),  # timm ignores both
        "finetune.rand_augment=rand-p.": (2, "rand_augment"),
        "finetune.blocks=3": (2, "the encoder has 2"),
        "finetune.batch.per_device=1": (2, "only one in each"),
    }
    for change, (code, message) in cases.items():
        more = ["model.backbone.class_token=false"] if "pool" in change else []
        refused = cli("finetune", two, change, *more, *SCRATCH, "--out", "run", "--overwrite")
        assert (refused.code, message in refused.err) == (code, True), (change, refused.err)
    draw_sides(Path("pictures/other"), 4, seed=2)
    Path("pictures/other/l").rename("pictures/other/q")
    refused = cli("finetune", two, "data.val.path=pictures/other", *SCRATCH)
    assert refused.code == 6
    assert "q" in refused.err


def test_a_bad_file_in_evaluation_is_fatal_and_named(cli: Cli, two: str) -> None:
    Path("pictures/val/l/000.png").write_bytes(b"bad")
    failed = cli("finetune", two, *SCRATCH, "--out", "run")
    assert failed.code == 6
    assert "pictures/val/l/000.png" in failed.err
    assert result_of("run")["exit"] == 6


def test_a_first_evaluation_at_chance_is_a_warning(cli: Cli, two: str) -> None:
    done = cli(
        "finetune",
        two,
        "finetune.optimizer.base_lr=1e-30",
        "finetune.optimizer.min_lr=0",
        *SCRATCH,
        "-q",
    )
    assert done.code == 0
    assert done.err.count("no better than chance") == 1


def test_a_stopped_run_resumes_bit_for_bit(
    cli: Cli, two: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["finetune.steps=60", "finetune.checkpoint.steps=7", "finetune.validate.every=20"]
    words += ["finetune.ema=0.9", "~finetune.rand_augment"]  # its randomness is the reader's
    assert cli("finetune", two, *words, *SCRATCH, "--out", "straight", "-q").code == 0
    loss, calls = FinetuneStep.loss, []

    def interrupting(self: Any, batch: Any) -> Any:
        calls.append(1)
        if len(calls) == 25:
            signal.raise_signal(signal.SIGTERM)
        return loss(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneStep, "loss", interrupting)
        assert cli("finetune", two, *words, *SCRATCH, "--out", "killed", "-q").code == 75
    assert len(losses("killed")) == 25
    resumed = cli("finetune", two, *words, "--out", "killed", "--resume")
    assert resumed.code == 0, resumed.err
    assert "resuming killed at step" in resumed.err
    assert losses("straight") == losses("killed")
    assert same_weights("straight", "killed")
    ends = [
        {key: result_of(run)[key] for key in ("top1", "best", "from")}
        for run in ("straight", "killed")
    ]
    assert ends[0] == ends[1]
    measured = [line for line in read_lines(Path("killed/metrics.jsonl")) if "test" in line]
    assert [line["step"] for line in measured] == [20, 40, 60]
    assert (
        Path("straight/predictions.jsonl").read_text()
        == Path("killed/predictions.jsonl").read_text()
    )


def test_a_resumed_run_splits_its_batch_as_before(cli: Cli, two: str) -> None:
    assert cli("finetune", two, *SCRATCH, "--out", "run", "-q").code == 0
    Path("run/result.json").unlink()
    other = cli("finetune", two, "finetune.batch.per_device=4", "--out", "run", "--resume")
    assert other.code == 2
    assert "per_device" in other.err
    assert cli("finetune", two, "pretrain.steps=9", "--out", "run", "--resume", "-q").code == 0


def test_weights_of_another_encoder_are_refused_with_both_values(cli: Cli, two: str) -> None:
    assert cli("pretrain", two, "-q").code == 0
    refused = cli("finetune", two, "model.backbone.width=48")
    assert refused.code == 3
    assert "32 in the weights, 48 requested" in refused.err
    bigger = cli("finetune", two, "data.size=32", "-q")
    assert bigger.code == 0, bigger.err
    assert maekit.load_classifier("runs/two/2")[0].grid == (1, 4, 4)  # a refused start has none


def test_somebody_elses_weights_can_be_started_from(cli: Cli, two: str) -> None:
    """transformers' folder of the same encoder: the same first loss, gradient and accuracy."""
    square = ["data.size=16"]  # transformers' ViTMAE knows no other pictures
    assert cli("pretrain", two, *square, "-q", "--out", "pre").code == 0
    converted = cli("weights", "convert", "pre", "theirs", "--to", "hf")
    assert converted.code == 0, converted.err
    words = [*PLAIN, *square, "finetune.steps=3", "-q"]
    for source, out in (("pre", "a"), ("hf:theirs", "b")):
        done = cli("finetune", two, *words, "--from", source, "--out", out)
        assert done.code == 0, done.err
    assert losses("a") == losses("b")
    assert result_of("b")["from"] == "hf:theirs"


def test_the_best_checkpoint_outlives_newer_ones(cli: Cli, two: str) -> None:
    words = [*PLAIN, "finetune.steps=30", "finetune.validate.every=2", "finetune.checkpoint.keep=1"]
    assert cli("finetune", two, *words, *SCRATCH, "--out", "run", "-q").code == 0
    best = result_of("run")["best"]
    kept = sorted(path.name for path in Path("run/checkpoints").glob("step-*"))
    assert kept == sorted({f"step-{best['step']:08d}", "step-00000030"})
    measured = {
        line["step"]: line["test"]["top1"]
        for line in read_lines(Path("run/metrics.jsonl"))
        if "test" in line
    }
    assert best["top1"] == max(measured.values())
    assert best["step"] == min(step for step, top1 in measured.items() if top1 == best["top1"])


def test_what_is_exported_is_the_average(cli: Cli, two: str) -> None:
    words = ["finetune.ema=0.5", *SCRATCH, "-q"]
    assert cli("finetune", two, *words, "--out", "run").code == 0
    checkpoint = Path("run/checkpoints") / Path("run/checkpoints/last").read_text()
    from maekit.weights.safetensors_io import read_tensors

    saved, exported = read_tensors(checkpoint / "model.safetensors"), weights("run")
    name = "backbone.transformer.1.mlp.fc1.weight"
    assert torch.equal(exported[name], saved[f"ema.{name}"])
    assert not torch.equal(exported[name], saved[name])


def test_labels_and_values_of_lists(cli: Cli, two: str) -> None:
    for split in ("train", "val"):
        lines = ["path,label"]
        for file in sorted(Path("pictures", split).rglob("*.png")):
            kind, even = file.parent.name, int(file.stem) % 4 < 2
            names = [kind, *(["even"] if even else [])]
            lines.append(f"pictures/{split}/{kind}/{file.name},{'|'.join(names)}")
        Path(f"{split}.csv").write_text("\n".join(lines) + "\n")
    lists = [f"data.{split}.path={split}.csv" for split in ("train", "val")]
    words = [*PLAIN, *lists, "finetune.steps=40", *SCRATCH, "-q"]
    done = cli("finetune", two, *words, "finetune.head.kind=multilabel", "--out", "labels")
    assert done.code == 0, done.err
    result = result_of("labels")
    assert "floor map: chance" in done.out
    assert 0.5 < result["map"] <= 1
    assert "top1" not in result
    assert maekit.load_classifier("labels")[1].classifier.outputs == ("even", "l", "r")  # type: ignore[union-attr]
    for split in ("train", "val"):
        text = Path(f"{split}.csv").read_text().replace(",l|even", ",-1.0|0.5")
        for old, new in ((",r|even", ",1|0.5"), (",l\n", ",-1.0|0.5\n"), (",r\n", ",1|0.5\n")):
            text = text.replace(old, new)
        Path(f"{split}.csv").write_text(text)
    done = cli("finetune", two, *words, "finetune.head.kind=regression", "--out", "values",
               "finetune.steps=80")  # fmt: skip
    assert done.code == 2  # steps twice
    words.remove("finetune.steps=40")
    done = cli("finetune", two, *words, "finetune.head.kind=regression", "--out", "values",
               "finetune.steps=80")  # fmt: skip
    assert done.code == 0, done.err
    assert "floor r2: chance" in done.out
    assert result_of("values")["r2"] > 0.5


def test_a_dry_run_counts_what_is_trained_and_writes_nothing(cli: Cli, two: str) -> None:
    before = {path for path in Path().rglob("*") if "pictures" not in path.parts}
    done = cli("finetune", two, "finetune.blocks=0", *SCRATCH, "--dry-run", "--json", "-q")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["verb"] == "finetune"
    assert found["classes"] == 2
    assert found["trained_parameters"] == 2 * 32 + 2 * 32 + 2  # fc_norm, head
    assert {path for path in Path().rglob("*") if "pictures" not in path.parts} == before


def test_results_beside_what_the_recipe_expects(cli: Cli, two: str) -> None:
    text = Path(two).read_text()
    text += "expected:\n  - {metric: finetune.top1, value: 0.5, band: 0.6, source: the test}\n"
    Path(two).write_text(text)
    done = cli("finetune", two, *SCRATCH, "--compare-expected", "--out", "run")
    assert done.code == 0
    assert "inside" in done.out
    assert result_of("run")["expected"][0]["inside"] is True


def test_a_finished_run_is_held_against_what_is_expected_by_now(cli: Cli, two: str) -> None:
    run = ("finetune", two, "finetune.steps=1", *SCRATCH, "--out", "run")
    assert cli(*run, "-q").code == 0
    again = cli(*run, "--resume", "--compare-expected")
    assert "the recipe expects no number of this verb" in again.out
    text = Path(two).read_text()
    of = "metric: finetune.top1, value: 0.5, band: 0.6, source: the test"
    Path(two).write_text(f"{text}expected:\n  - {{{of}}}\n  - {{{of}, protocol: other}}\n")
    again = cli(*run, "--resume", "--compare-expected")
    assert again.code == 0, again.err
    assert "inside" in again.out
    assert "not compared: this run's protocol is finetune/all/1x1" in again.out
    assert "expected" not in result_of("run")


def test_two_runs_are_the_same_and_two_seeds_are_not(cli: Cli, two: str) -> None:
    for out, more in (("a", []), ("b", []), ("c", ["seed=1"])):
        assert cli("finetune", two, *more, *SCRATCH, "--out", out, "-q").code == 0
    assert losses("a") == losses("b")
    assert same_weights("a", "b")
    assert losses("a") != losses("c")


@pytest.mark.slow  # the worker imports torch, for RandAugment
def test_a_worker_changes_nothing(cli: Cli, two: str) -> None:
    for workers in (0, 1):
        words = [f"data.workers={workers}", *SCRATCH, "--out", str(workers), "-q"]
        assert cli("finetune", two, *words).code == 0
    assert losses("0") == losses("1")
    assert same_weights("0", "1")


def test_the_written_recipe_reads_back(cli: Cli, two: str) -> None:
    assert cli("finetune", two, *SCRATCH, "--out", "run", "-q").code == 0
    again = load("run/recipe.yaml").recipe
    assert again.finetune is not None
    assert again.finetune.mixup == 0.8
    assert again.model is not None
    assert again.model.backbone.written["drop_path"] == 0.2


@pytest.mark.parametrize(
    ("words", "moved"),
    [
        (["finetune.blocks=0"], ()),
        (["finetune.blocks=half"], ("transformer.1.norm2", "transformer.1.mlp")),
        (["finetune.blocks=1"], ("transformer.1.",)),
        (["finetune.positions=fixed"], ("transformer.", "patch_embed", "class_token")),
        ([], ("transformer.", "patch_embed", "class_token", "positions")),
    ],
)
def test_what_is_frozen_stays_as_it_was_weight_decay_or_not(
    cli: Cli, two: str, words: list[str], moved: tuple[str, ...]
) -> None:
    assert cli("pretrain", two, "-q", "--out", "pre").code == 0
    words = [*words, "finetune.optimizer.weight_decay=0.3", "finetune.steps=4", "--from", "pre"]
    done = cli("finetune", two, *words, "--out", "run", "-q")
    assert done.code == 0, done.err
    before, after = weights("pre"), weights("run")
    encoder = [name for name in after if name.startswith("backbone.")]
    changed = {name for name in encoder if not torch.equal(before[name], after[name])}
    expected = {name for name in encoder if name.removeprefix("backbone.").startswith(moved)}
    assert changed == (expected if moved else set())
