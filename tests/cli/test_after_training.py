"""What people do with a fine-tuned model of real data: ask it, judge it, hand it over.

One small fine-tuning of each of three labeled sets of ../shared/data serves all: pictures of
scenes, pictures with several labels, clips.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from small_recipes import IMAGES, VIDEOS, Recipe, laid_over
from small_runs import result_of

import maekit
from maekit.data.order import Key
from maekit.data.pixels import to_float01
from maekit.datasets.named_files import NamedFiles, find_files
from maekit.engine.run_folder import read_lines
from maekit.evaluate.predict import HERE, scorer_of
from maekit.evaluate.way import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from conftest import Result

    Cli = Callable[..., Result]

pytestmark = pytest.mark.slow  # each set is trained on, half a minute in all

SCENES: Recipe = {
    "name": "scenes",
    "data": {"size": [32, 48], "stats": "imagenet"},
    "model": {"backbone": {"width": 64}},
    "finetune": {"epochs": 2, "batch": {"global": 32},
                 "optimizer": {"name": "adamw", "base_lr": 1.6e-2},
                 "views": {"crops": 3}},
}  # fmt: skip
DIGITS: Recipe = {
    "name": "digits",
    "data": {"size": 28, "channels": 1, "stats": {"mean": [0.13], "std": [0.31]}},
    "model": {"backbone": {"width": 64, "patch": 4}},
    "finetune": {"epochs": 3, "warmup": {"steps": 4}, "batch": {"global": 64},
                 "head": {"kind": "multilabel"},
                 "optimizer": {"name": "adamw", "base_lr": 2e-2}},
}  # fmt: skip
MOTIONS: Recipe = {
    "name": "motions",
    "data": {"train": {"stride": 2, "frames": 8}, "val": {"stride": 2, "frames": 8}, "size": 32},
    # As VideoMAE's own, which transformers can hold.
    "model": {"backbone": {"width": 48, "positions": "sincos-1d"}, "decoder": {"positions": None}},
    "finetune": {"epochs": 3, "warmup": {"steps": 4}, "batch": {"global": 16},
                 "positions": "fixed", "optimizer": {"name": "adamw", "base_lr": 4.8e-2},
                 "views": {"clips": 2, "crops": 3}},
}  # fmt: skip
LABELS = {"odd": "13579", "large": "56789", "round": "0689"}  # 2 and 4 have none
FILES = 50  # that an exported classifier is run on


class Tuned(NamedTuple):
    """A fine-tuned run, what it was judged on, and the classes of each file of that."""

    run: str
    val: str
    classes: dict[str, str]


def tune(folder: Path, base: Recipe, own: Recipe, train: Path, val: Path) -> str:
    data = {"data": {"train": {"path": str(train)}, "val": {"path": str(val)}}}
    recipe = laid_over(base, own, data, without=("pretrain",))
    out = folder / "run"
    done = maekit.run(recipe, "finetune", source="scratch", out=out, device="cpu", seed=0)
    assert done["exit"] == 0
    return str(out)


@pytest.fixture(scope="module")
def scenes(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    data = shared_data / "scene6-1500"
    run = tune(tmp_path_factory.mktemp("scenes"), IMAGES, SCENES, data / "train", data / "val")
    files = (data / "val").rglob("*.jpg")
    return Tuned(run, str(data / "val"), {str(path): path.parent.name for path in files})


@pytest.fixture(scope="module")
def digits(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("digits")
    known: dict[str, str] = {}
    for name, source in (("train", "train"), ("val", "test")):
        files = sorted((shared_data / "mnist-gray-3k" / source).rglob("*.png"))
        known = {
            str(path): "|".join(n for n, own in LABELS.items() if path.parent.name in own) or "-"
            for path in files
        }
        rows = "".join(f"{path},{labels}\n" for path, labels in known.items())
        (folder / f"{name}.csv").write_text("path,label\n" + rows)
    run = tune(folder, IMAGES, DIGITS, folder / "train.csv", folder / "val.csv")
    return Tuned(run, str(folder / "val.csv"), known)


@pytest.fixture(scope="module")
def motions(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    data = shared_data / "motion8"
    val = data / "val.txt"
    folder = tmp_path_factory.mktemp("motions")
    run = tune(folder, VIDEOS, MOTIONS, data / "train.txt", val)
    rows = [line.split() for line in val.read_text().splitlines()]
    return Tuned(run, str(val), {str(data / path): label for path, label in rows})


def asked(cli: Cli, tuned: Tuned, out: Path, *words: str) -> list[dict[str, str]]:
    """Return the rows of what `maekit predict` writes of all held-out files."""
    done = cli("predict", tuned.val, "--from", tuned.run, "--out", str(out), "-q", *words)
    assert done.code == 0, done.err
    with out.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert {row["input"] for row in found} == tuned.classes.keys()
    assert not any(row["error"] for row in found)
    return found


def judged(cli: Cli, tuned: Tuned, out: Path) -> dict[str, Any]:
    """Judge it once more on the same files; return the result, which must be the run's own."""
    done = cli("evaluate", tuned.run, "--data", tuned.val, "--out", str(out), "--json", "-q")
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    before = result_of(tuned.run)
    for key in {"top1", "top5", "map", "exact", "per_class", "single_view"} & before.keys():
        assert result[key] == before[key], key
    return result


@pytest.mark.parametrize("name", ["scenes", "motions"])
def test_classes_that_are_predicted_are_those_that_are_judged(
    cli: Cli, request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    tuned: Tuned = request.getfixturevalue(name)
    rows = asked(cli, tuned, tmp_path / "answers.csv")
    result = judged(cli, tuned, tmp_path / "judged")
    pairs = Counter((tuned.classes[row["input"]], row["class"]) for row in rows)
    right = sum(times for (true, said), times in pairs.items() if true == said)
    assert right / len(rows) == result["top1"]
    names = sorted(set(tuned.classes.values()))
    assert len({row["class"] for row in rows}) > 2  # or all of this would say little
    for each in names:
        samples = sum(pairs[each, said] for said in names)
        assert pairs[each, each] / samples == result["per_class"][each]
    with (tmp_path / "judged/confusion.csv").open(encoding="utf-8", newline="") as file:
        matrix = {row.pop("class"): row for row in csv.DictReader(file)}
    assert {true: {said: str(pairs[true, said]) for said in names} for true in names} == matrix
    top5 = [tuned.classes[row["input"]] in [row[f"class{end}"] for end in ENDS] for row in rows]
    assert np.mean(top5) == result["top5"]


ENDS = ("", "_2", "_3", "_4", "_5")


def test_labels_that_are_predicted_are_those_that_are_judged(
    cli: Cli, digits: Tuned, tmp_path: Path
) -> None:
    rows = asked(cli, digits, tmp_path / "answers.csv")
    result = judged(cli, digits, tmp_path / "judged")
    exact = [set(row["labels"].split("|")) == set(digits.classes[row["input"]].split("|"))
             for row in rows]  # fmt: skip
    assert np.mean(exact) == result["exact"]
    assert len({row["labels"] for row in rows}) > 2
    for label in LABELS:
        has = np.array([label in digits.classes[row["input"]].split("|") for row in rows])
        scores = np.array([float(row[label]) for row in rows])
        # Average precision: the mean, over those that have it, of the precision down to each.
        order = np.argsort(-scores, kind="stable")
        precision = np.cumsum(has[order]) / np.arange(1, len(has) + 1)
        assert precision[has[order]].mean() == pytest.approx(result["per_class"][label], abs=1e-3)
    mean = np.mean(list(result["per_class"].values()))
    assert mean == pytest.approx(result["map"], abs=1e-12)


# Runs a printed snippet, in which maekit cannot be imported, on files, and on pixels that are
# given; prints both scores of each.
ALONE = """
import json, re, sys

class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "maekit":
            raise ImportError("there is no maekit here")

sys.meta_path.insert(0, Refused())
try:
    import maekit
except ImportError:
    pass
else:
    sys.exit("maekit is here")
import numpy as np
code, placeholder, files, given = json.load(sys.stdin)
loaded = []
def once(load):  # not anew for each file, which takes most of the time
    loaded.extend([] if loaded else [load()])
    return loaded[0]
code, count = re.subn(r"^(model|session) = (.*)$", r"\\1 = once(lambda: \\2)", code, flags=re.M)
assert count == 1
end = code.index("[None]") + len("[None]")  # of what makes pixels
imports = code[:code.index("def view")]
rows = []
for file, pixels in zip(files, np.load(given)):
    whole, part = {"once": once}, {"pixels": pixels[None], "once": once}
    exec(code.replace(placeholder, file), whole)
    exec(imports + code[end:], part)
    for names in (whole, part):
        rows.append(dict(zip(names["classes"], names["scores"][0].tolist())))
print("ROWS", json.dumps([rows[::2], rows[1::2]]))
assert "maekit" not in sys.modules
"""


def pixels_of(run: str, files: Sequence[str], path: Path) -> None:
    """Write what maekit itself reads of files: the center view of each, in [0, 1]."""
    scorer = scorer_of(Request(run, data=HERE), torch.device("cpu"), lambda event: None)
    moving = scorer.header.clip[0] > 1
    reader = scorer.reader(NamedFiles(find_files(files, moving=moving)), center=True)
    samples = [reader.read(Key(0, row)) for row in range(len(files))]
    np.save(path, np.stack([to_float01(sample.views[0][0]) for sample in samples]))


def handed_over(cli: Cli, tuned: Tuned, folder: Path, form: tuple[str, str]) -> None:
    """Convert it, run what is printed without maekit, and compare with what maekit predicts."""
    to, name = form
    done = cli("weights", "convert", tuned.run, str(folder / name), "--to", to)
    assert done.code == 0, done.err
    code = "import" + done.out.partition("without maekit:\n\nimport")[2]
    files = sorted(tuned.classes)[:: len(tuned.classes) // FILES][:FILES]
    assert len(files) == FILES
    pixels_of(tuned.run, files, folder / "pixels.npy")
    placeholder = "clip.mp4" if "clip.mp4" in code else "photo.jpg"
    given = json.dumps([code, placeholder, files, str(folder / "pixels.npy")])
    words = [sys.executable, "-I", "-c", ALONE]
    ran = subprocess.run(
        words, input=given, cwd=folder, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    from_files, from_pixels = json.loads(ran.stdout.partition("ROWS ")[2])
    out = str(folder / f"{to}.json")
    words = ["predict", *files, "--from", tuned.run, "--views", "1x1", "--top", "99", "-q"]
    done = cli(*words, "--out", out)
    assert done.code == 0, done.err
    ours = [scores_of(row) for row in json.loads(Path(out).read_text())]
    assert [row.keys() for row in ours] == [row.keys() for row in from_files]
    names = list(ours[0])
    table = np.array([[row[each] for each in names] for row in ours])
    assert np.ptp(table, axis=0).max() > 0.05  # files differ by more than what is allowed
    for theirs, bound in ((from_pixels, 1e-4), (from_files, 0.02)):
        rows = np.array([[row[each] for each in names] for row in theirs])
        assert np.abs(rows - table).max() < bound, (to, bound)


def scores_of(row: dict[str, Any]) -> dict[str, float]:
    """Return the score of each class, in the order of their names, of one row of answers."""
    if "class" not in row:
        return {name: row[name] for name in LABELS}
    ends = ("", *(f"_{place}" for place in range(2, len(row))))
    pairs = {row[f"class{end}"]: row[f"probability{end}"] for end in ends if f"class{end}" in row}
    return dict(sorted(pairs.items()))


FORMS = [("onnx", "model.onnx"), ("timm", "model.safetensors"), ("export", "model.pt2")]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0])
def test_a_classifier_of_pictures_runs_without_maekit(
    cli: Cli, scenes: Tuned, tmp_path: Path, form: tuple[str, str]
) -> None:
    handed_over(cli, scenes, tmp_path, form)


def test_a_classifier_of_several_labels_runs_without_maekit(
    cli: Cli, digits: Tuned, tmp_path: Path
) -> None:
    handed_over(cli, digits, tmp_path, FORMS[0])


@pytest.mark.parametrize("form", [("hf", "videomae"), FORMS[0]], ids=lambda form: form[0])
def test_a_classifier_of_clips_runs_without_maekit(
    cli: Cli, motions: Tuned, tmp_path: Path, form: tuple[str, str]
) -> None:
    if form[0] == "hf":
        pytest.importorskip("transformers")
    handed_over(cli, motions, tmp_path, form)


def test_an_encoder_of_a_tuned_run_goes_out_as_any_other(
    cli: Cli, digits: Tuned, tmp_path: Path
) -> None:
    """To every format that holds one; what it computes is that of the tuned model."""
    pixels = torch.rand(2, 1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    tuned = maekit.load(digits.run)
    names = {"maekit": "e.safetensors", "timm": "t.safetensors", "onnx": "e.onnx", "mae": "e.pth"}
    for form in (*names, "hf"):
        path = tmp_path / names.get(form, "folder")
        done = cli("weights", "convert", digits.run, str(path), "--to", form, "--encoder")
        assert done.code == 0, (form, done.err)
        assert "left out: the classifier's norm and head" in done.out
        if form in ("maekit", "hf"):
            again = maekit.load(f"hf:{path}" if form == "hf" else path)
            one, other = (model.encode(model.normalize(pixels)) for model in (tuned, again))
            assert torch.allclose(one, other, atol=1e-5), form
    assert list(read_lines(Path(digits.run, "predictions.jsonl")))  # the run is as it was
