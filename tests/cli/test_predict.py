"""``maekit predict``: what a classifier answers for any files."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from numerics import close
from PIL import Image
from small_recipes import VIDEOS, write_noise, write_recipe
from small_runs import VIEWED, result_of, stopped_after_shards

import maekit
from maekit.data.order import Key
from maekit.engine.run_folder import read_lines
from maekit.evaluate import pictured
from maekit.evaluate import predict as predicting
from maekit.evaluate.answers import Columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import Result

    Cli = Callable[..., Result]

SCRATCH = ("--from", "scratch")


def rows(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def tuned(cli: Cli, two: str) -> str:
    """Fine-tune on two classes."""
    done = cli("finetune", two, "finetune.steps=3", *SCRATCH, "-q")
    assert done.code == 0, done.err
    return "runs/two/1"


def test_a_csv_has_the_accuracy_of_the_run(cli: Cli, tuned: str) -> None:
    done = cli("predict", "pictures/val", "--out", "a.csv")  # of the newest classifier
    assert done.code == 0, done.err
    assert "runs/two/1/weights.safetensors (the newest finished classifier" in done.err
    found = rows("a.csv")
    assert list(found[0]) == ["input", "class", "probability", "class_2", "probability_2", "error"]
    right = [Path(each["input"]).parent.name == each["class"] for each in found]
    assert np.mean(right) == result_of(tuned)["top1"]
    first = done.out.splitlines()[1].split()
    assert first[:2] == [found[0]["input"], found[0]["class"]]
    # Those of the run's own set are the same, under the names that it has there.
    own = cli("predict", "--set", "val", "--from", tuned, "--top", "1", "--out", "b.json", "--json")
    assert own.code == 0, own.err
    said = json.loads(own.out)
    assert said["predictions"] == json.loads(Path("b.json").read_text())
    known = {each["id"]: each["scores"] for each in read_lines(Path(tuned, "predictions.jsonl"))}
    for each in said["predictions"]:
        assert list(each) == ["input", "class", "probability", "error"]
        assert each["probability"] == max(known[each["input"]])
    assert {Path(each["input"]).name for each in found} == {Path(name).name for name in known}
    assert [each["class"] for each in found] == [each["class"] for each in said["predictions"]]


def test_a_bad_file_is_named_and_the_others_are_done(cli: Cli, tuned: str) -> None:
    Path("pictures/val/broken.png").write_bytes(b"none")
    Image.new("RGB", (2000, 20)).save("wide.png")
    done = cli("predict", "pictures/val", "wide.png", "absent.png", "--json", "-q")
    assert done.code == 6
    said = json.loads(done.out)
    assert (said["exit"], said["inputs"]) == (6, 19)
    assert [Path(each["input"]).name for each in said["errors"]] == ["broken.png", "absent.png"]
    assert sum(said["left_out"].values()) == 1  # cut
    found = rows("predictions.csv")
    assert [Path(each["input"]).name for each in found if each["error"]] == [
        "broken.png",
        "absent.png",
    ]
    assert all(each["class"] in "lr" for each in found if not each["error"])
    assert cli("predict", "wide.png").code == 2  # the file is there
    for words in (("absent.png",), (), ("wide.png", "--set", "val"), ("a.png", "--window", "2s"),
                  ("wide.png", "--every", "2 weeks"), ("wide.png", "--out", "x.xls")):  # fmt: skip
        assert cli("predict", *words, "--overwrite").code == 2, words


def test_words_that_make_no_sense_are_refused_before_anything_is_written(
    cli: Cli, tuned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("none.csv", ""), ("head.csv", "path,label\n"), ("blank.txt", "\n\n")):
        Path(name).write_text(text)
        done = cli("predict", name)
        assert (done.code, f"{name}: the list has no rows" in done.err) == (6, True), done.err
    pretrained = cli("pretrain", "two.yaml", "pretrain.steps=1", "--out", "pre", "-q")
    assert pretrained.code == 0, pretrained.err
    asked = cli("predict", "pictures/val", "--from", "pre")
    assert (asked.code, "hold no classifier" in asked.err) == (3, True)
    assert cli("predict", "pictures/val", "--pictures", "none.csv").code == 2
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pyarrow", None)
        for words in (("--format", "parquet"), ("--out", "a.parquet")):
            lacking = cli("predict", "pictures/val", *words)
            assert lacking.code == 2
            assert "pip install 'maekit[parquet]', or another --format" in lacking.err
    left = {path.name for path in Path().iterdir()}
    assert left == {"none.csv", "head.csv", "blank.txt", "pictures", "pre", "runs", "two.yaml"}
    file = next(Path("pictures/val").rglob("*.png"))
    Path("same.csv").write_text(f"path,label\n{file},l\n{file},r\n")
    twice = cli("predict", "same.csv", "--top", "99", "--pictures", "drawn")
    assert twice.code == 0, twice.err
    assert "2 inputs, 1 view of each; 2 outputs" in twice.err
    first, second = rows("predictions.csv")
    assert first == second
    assert list(first)[1:5] == ["class", "probability", "class_2", "probability_2"]
    assert [path.name for path in Path("drawn").iterdir()] == ["sheet-001.png"]


def test_without_a_classifier(cli: Cli, two: str) -> None:
    none = cli("predict", "pictures/val")
    assert none.code == 2
    assert "no run below runs/ has left a classifier" in none.err
    assert cli("predict", "pictures/val", "--from", "demo").code == 3


def test_killed_twice_it_writes_the_same_bytes(
    cli: Cli, tuned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "SHARD_SIZE", 3)
    words = ("predict", "pictures", "--from", tuned, "-q")
    assert cli(*words, "--out", "whole.csv").code == 0
    made = stopped_after_shards(monkeypatch, 2, 5)
    codes = [cli(*words, "--out", "cut.csv").code for _ in range(3)]
    assert codes == [75, 75, 0]
    assert made == list(range(19))  # of 56 files; none twice
    assert Path("cut.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not Path("cut.csv.parts").exists()


def by_shares(cli: Cli, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[dict[str, bytes]]:
    """Draw what each of two ranks draws; return the files of each."""
    found = []
    for rank in (0, 1):
        with monkeypatch.context() as patched:
            place = SimpleNamespace(size=lambda: 2, rank=lambda own=rank: own,
                                    share=lambda items, own=rank: items[own::2])  # fmt: skip
            patched.setattr(pictured, "distributed", place)
            assert cli(*words, f"rank-{rank}", "-q", "--overwrite").code in (0, 6)
        found.append({path.name: path.read_bytes() for path in Path(f"rank-{rank}").iterdir()})
        shutil.rmtree(f"rank-{rank}")
    return found


def test_answers_are_drawn_onto_pictures(
    cli: Cli, tuned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("pictures/val/bad.png").write_bytes(b"none")
    words = ("predict", "pictures", "--from", tuned, "--pictures", "drawn")
    done = cli(*words)
    assert done.code == 6, done.err
    assert "pictures: 3 files in drawn" in done.err  # of 56, 20 on a sheet
    sheets = [np.asarray(Image.open(path), int) for path in sorted(Path("drawn").iterdir())]
    assert [sheet.shape[1] for sheet in sheets] == [sheets[0].shape[1]] * 3
    blue = [(sheet[..., 2] > sheet[..., 0] + 60).sum() for sheet in sheets]
    assert min(blue) > 1000  # the bars
    first = {path.name: path.read_bytes() for path in Path("drawn").iterdir()}
    assert cli(*words, "--overwrite").code == 6
    assert {path.name: path.read_bytes() for path in Path("drawn").iterdir()} == first
    own = ("predict", "pictures", "--from", tuned, "--out", "shares.csv", "--pictures")
    shares = by_shares(cli, monkeypatch, *own)
    assert [sorted(each) for each in shares] == [["sheet-001.png", "sheet-003.png"],
                                                 ["sheet-002.png"]]  # fmt: skip
    assert shares[0] | shares[1] == first
    Path("taken").write_text("")
    refused = cli(*words[:-1], "taken", "--overwrite")
    assert (refused.code, "not a folder" in refused.err) == (2, True)


def read_frames(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        yield from container.decode(video=0)


def labels_from(folder: str, path: str, label: Callable[[str, int], str]) -> str:
    """Write a list of a folder's pictures with other labels."""
    found = sorted(Path(folder).rglob("*.png"))
    lines = [f"{each} {label(each.parent.name, number)}" for number, each in enumerate(found)]
    Path(path).write_text("\n".join(lines))
    return path


def test_columns_of_ours_are_never_outputs() -> None:
    outputs = ("input", "start", "stop", "error", "labels", "x")
    for kind, first in (("multilabel", ["labels"]), ("regression", [])):
        described = SimpleNamespace(kind=kind, outputs=outputs)
        for windows in (False, True):
            names = Columns(described, 1, windows=windows).names  # type: ignore[arg-type]
            times = ["start", "stop"] if windows else []
            last = "labels_2" if first else "labels"
            own = ["input_2", "start_2", "stop_2", "error_2", last, "x"]
            assert names == ["input", *times, *first, *own, "error"]


def test_scores_that_are_not_finite_are_called_so() -> None:
    read = SimpleNamespace(bad=(), keys=[Key(0, 4), Key(0, 5)])
    made = {"scores": np.array([[0.5], [np.nan]])}
    (bad,) = predicting._skip_bad(read, made, str)  # type: ignore[arg-type]
    assert (bad.index, bad.reason) == (5, "its scores are not finite")


def test_several_labels_and_values(cli: Cli, two: str) -> None:
    sides = labels_from(
        "pictures/train", "sides.txt", lambda side, n: f"{side}|odd" * (n % 2) or side
    )
    heights = labels_from("pictures/train", "heights.txt", lambda side, n: f"{n}|{-n}")
    plain = ("finetune.label_smoothing=0", "finetune.steps=2", *SCRATCH)
    for kind, path in (("multilabel", sides), ("regression", heights)):
        words = (f"data.train.path={path}", f"data.val.path={path}", f"finetune.head.kind={kind}")
        done = cli("finetune", two, *words, *plain, "--out", kind, "-q")
        assert done.code == 0, done.err
        out = f"{kind}.parquet" if kind == "multilabel" else f"{kind}.csv"
        assert cli("predict", "pictures/train", "--from", kind, "--out", out, "-q").code == 0
    from pyarrow import parquet

    table = parquet.read_table("multilabel.parquet")
    assert table.column_names == ["input", "labels", "l", "odd", "r", "error"]
    for row in table.to_pylist():
        likely = [name for name in ("l", "odd", "r") if row[name] > 0.5]
        assert row["labels"] == ("|".join(likely) or "-")
    known = [each["scores"] for each in read_lines(Path("multilabel/predictions.jsonl"))]
    scores = [[row[name] for name in ("l", "odd", "r")] for row in table.to_pylist()]
    assert scores == known
    values = rows("regression.csv")
    assert list(values[0]) == ["input", "value_0", "value_1", "error"]
    known = [each["scores"] for each in read_lines(Path("regression/predictions.jsonl"))]
    assert [[float(row["value_0"]), float(row["value_1"])] for row in values] == known


def test_videos_whole_and_by_windows(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, frames in enumerate((9, 15, 3, 40)):
        write_noise(Path("clips", "ab"[number % 2], f"{number}.mp4"), frames)
    recipe = write_recipe(tmp_path / "clips.yaml", VIDEOS, VIEWED)
    assert cli("finetune", recipe, *SCRATCH, "--out", "tuned", "-q").code == 0
    done = cli("predict", "clips", "--from", "tuned", "--json", "-q", "--out", "whole.csv")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert said["settings"]["views"] == "2x3"
    lines = read_lines(Path("tuned/predictions.jsonl"))
    known = {Path(each["id"]).name: max(each["scores"]) for each in lines}
    ours = {Path(each["input"]).name: each["probability"] for each in said["predictions"]}
    assert ours.keys() == known.keys()
    close(list(ours.values()), [known[name] for name in ours], terms=1000)
    words = ("--from", "tuned", "--every", "1s", "--views", "1x1", "--out", "windows.csv")
    done = cli("predict", "clips", *words)
    assert done.code == 0, done.err
    found = rows("windows.csv")
    assert list(found[0])[:3] == ["input", "start", "stop"]
    per_file = [sum(each["input"].endswith(f"{n}.mp4") for each in found) for n in range(4)]
    assert per_file == [1, 2, 1, 4]
    drawn = cli("predict", "clips", *words, "--overwrite", "--pictures", "drawn", "--json", "-q")
    assert json.loads(drawn.out)["pictures"] == "drawn"
    assert len(rows("windows.csv")) == len(found)
    assert sorted(path.name for path in Path("drawn").iterdir()) == [f"{n}.mp4" for n in range(4)]
    lengths = {path.stem: len(list(read_frames(path))) for path in Path("drawn").iterdir()}
    assert lengths == {"0": 4, "1": 8, "2": 4, "3": 16}  # 4 frames a window
    whole = {path.name: path.read_bytes() for path in Path("drawn").iterdir()}
    shares = by_shares(cli, monkeypatch, "predict", "clips", *words, "--pictures")
    assert [len(each) for each in shares] == [2, 2]
    assert shares[0] | shares[1] == whole
    # In Python, too.
    loaded = maekit.load_classifier("tuned")
    model, header = loaded
    assert header.classifier is not None
    assert model.grid.tokens > 0
    answers = loaded.predict(["clips/a/0.mp4", "clips/b/none.mp4"], top=1)
    assert answers[0].classes[0] == said["predictions"][0]["class"]
    close([answers[0].scores[0]], [said["predictions"][0]["probability"]], terms=1000)
    assert (answers[1].error, answers[1].classes) == ("no such file or folder", ())
    assert len(loaded.predict("clips/b/3.mp4", every=1.0)) == 4
    model.train()  # it answers in evaluation mode, and is left as it was
    assert loaded.predict("clips/a/0.mp4", top=1) == answers[:1]
    assert model.training
