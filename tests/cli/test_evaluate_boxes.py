"""``maekit evaluate`` of detectors: as their runs judged themselves, and on other lists."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from figures import ACTIONS, BASE, draw_films, of_films
from small_recipes import Recipe, write_recipe
from small_runs import result_of, stopped_after_shards

from maekit.evaluate.detection import evaluation

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

FEW: Recipe = {"name": "colors", "finetune": {"steps": 12, "validate": {"every": 12}}}
WRITTEN = ("predictions.csv", "classes.csv", "curves.png", "key_frames.png")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for split, count, seed in (("train", 12, 0), ("val", 6, 1), ("other", 3, 2)):
        draw_films(folder / split, count, seed)
    write_recipe(folder / "colors.yaml", BASE, of_films(folder), FEW)
    return folder


@pytest.fixture
def tuned(cli: Cli, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a trained run, made once, in a folder with the films."""
    monkeypatch.chdir(tmp_path)
    made = films / "tuned"
    if not made.exists():
        words = ("finetune", str(films / "colors.yaml"), "--from", "scratch", "--out", str(made))
        done = cli(*words, "-q")
        assert done.code == 0, done.err
    shutil.copytree(made, "tuned")
    return "tuned"


def read(path: str | Path) -> str:
    return Path(path).read_text(encoding="utf-8")


def test_a_run_is_judged_as_it_judged_itself(cli: Cli, tuned: str) -> None:
    done = cli("evaluate", tuned, "--out", "again", "--json")
    assert done.code == 0, done.err
    result, before = json.loads(done.out), result_of(tuned)
    same = ("map", "per_class", "per_movie", "floor", "protocol", "dialect", "score_rule", "boxes")
    for key in (*same, "person_boxes", "true", "unread", "iou", "classes"):
        assert result[key] == before[key], key
    assert result["protocol"] == "finetune/all/alphaction/annotated"
    assert result == result_of("again")
    for name in WRITTEN:
        assert Path("again", name).read_bytes() == Path(tuned, name).read_bytes(), name
    assert not Path("again/scores").exists()
    assert "6 key frames" in done.err
    shown = cli("evaluate", tuned, "--out", "shown")
    assert re.search(r"boxes +12 scored, 12 true", shown.out)
    assert "floor: same_in_frame" in shown.out
    assert cli("report", "again", tuned, "--out", "both.html").code == 0
    assert "map" in read("both.html")


def test_another_list_of_boxes_is_judged_by_its_names_or_numbers(
    cli: Cli, tuned: str, films: Path
) -> None:
    """Names in a list are sorted, and some may be missing; AVA's files have numbers from 1."""
    rows = [line.split(",") for line in read(films / "other/boxes.csv").splitlines()[1:]]
    rows = [row for row in rows if row[-1] != "red"]
    head = "video,second,x1,y1,x2,y2,label\n"
    (films / "other/named.csv").write_text(head + "".join(",".join(row) + "\n" for row in rows))
    trained = sorted(ACTIONS)  # as the list that it was trained on has them
    numbered = [[*row[:-1], str(trained.index(row[-1]) + 1), "1"] for row in rows]
    text = "".join(",".join(row) + "\n" for row in numbered)
    Path("ava.csv").write_text(text)
    videos = f"data.val.videos={films / 'other'}"
    listed = str(films / "other/named.csv")
    by_name = cli("evaluate", tuned, videos, "--data", listed, "--out", "named")
    assert by_name.code == 0, by_name.err
    assert f"movies are looked for in {films / 'other'}" in by_name.err.replace("\n", " ")
    by_number = cli("evaluate", tuned, videos, "--data", "ava.csv", "--out", "ava")
    assert by_number.code == 0, by_number.err
    assert read("named/predictions.csv") == read("ava/predictions.csv")
    one, other = result_of("named"), result_of("ava")
    assert one["map"] == other["map"] is not None
    assert set(one["per_class"]) == {"green", "blue"}
    assert one["per_class"] == other["per_class"]
    assert one["true"] == len(rows)


def test_weights_alone_are_judged_as_officially(cli: Cli, tuned: str, films: Path) -> None:
    shutil.copy(f"{tuned}/weights.safetensors", "alone.safetensors")
    listed = str(films / "val/boxes.csv")
    done = cli("evaluate", "alone.safetensors", "--data", listed, "--out", "alone", "--json")
    assert done.code == 0, done.err
    assert "no recipe: the clip of 2 frames around each moment, 25 a second" in done.err
    result = json.loads(done.out)
    assert result["protocol"] == "evaluate/alphaction/annotated"
    assert result["settings"]["widen"] == [0.1, 0.05]
    assert (result["settings"]["stride"], result["settings"]["rate"]) == (4, 25)


def lines(path: Path, *more: str) -> str:
    Path("list.csv").write_text(read(path) + "".join(f"{line}\n" for line in more))
    return "list.csv"


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("film0,0.2,0,0,1,1,walk", 6, "are not among the 3 of the model: walk"),
        ("film0,0.2,0,0,left,1,red", 6, "list.csv:14: x2 is no number"),
        ("film9,0.2,0,0,1,1,red", 0, "film9"),
        ("film0,700,0,0,1,1,red", 0, "second 700 is not in"),
    ],
)
def test_a_list_with_a_row_that_cannot_be_used(
    cli: Cli, tuned: str, films: Path, row: str, code: int, said: str
) -> None:
    listed = lines(films / "val/boxes.csv", row)
    words = (f"data.val.videos={films / 'val'}", "data.val.max_bad_fraction=0.5")
    done = cli("evaluate", tuned, *words, "--data", listed, "--out", "run")
    assert done.code == code, done.err
    assert said in done.err.replace("\n", " ")
    result = result_of("run")
    assert result["exit"] == code
    if code == 0:  # its truth counts, and nothing stands in for it
        assert (result["unread"], result["true"], result["boxes"]) == (1, 13, 12)
        (bad,) = read("run/bad_files.jsonl").splitlines()
        assert json.loads(bad)["file"].startswith(row[:6])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--views", "2x3"], 2, "judged on one view of a clip, whole"),
        (["--data", "nowhere.csv"], 6, "no annotations at"),
        (["videos"], 6, "the samples have no boxes"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    cli: Cli, tuned: str, films: Path, words: list[str], code: int, said: str
) -> None:
    if words == ["videos"]:
        words = [f"data.val={{name: videos, path: {films / 'val'}}}"]
    done = cli("evaluate", tuned, *words, "--out", "x")
    assert done.code == code, done.err
    assert said in done.err.replace("\n", " ")


def test_scores_outlive_an_interruption(
    cli: Cli, tuned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "SHARD_SIZE", 4)
    made = stopped_after_shards(monkeypatch, 1)
    first = cli("evaluate", tuned, "--out", "run")
    assert first.code == 75
    typed = re.search(r"continue with maekit (.+)", first.err.replace("\n", " "))
    assert typed is not None
    done = cli(*shlex.split(typed[1]))
    assert done.code == 0, done.err
    assert made == [0, 1]  # the first one is not made again
    assert read("run/predictions.csv") == read(f"{tuned}/predictions.csv")
    assert result_of("run")["map"] == result_of(tuned)["map"]
