"""``maekit detect``: rows, JSON and films of what is done in boxes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from figures import Figures, resolved
from numerics import close

from maekit.cli.app import main
from maekit.datasets.box_lists import BoxRow
from maekit.datasets.named_files import NamedFile
from maekit.datasets.named_moments import of_rows
from maekit.engine.run import RunOptions, run_in_folder
from maekit.errors import WeightsError
from maekit.evaluate.detection.job import DetectionJob
from maekit.evaluate.detection.persons import PersonDetector
from maekit.visualize.boxes import Shown, drawn


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that learned which color is in a box."""
    with pytest.MonkeyPatch.context() as patch:
        sets = (Figures(48), Figures(8, seed=1))
        patch.setattr("maekit.engine.job.open_sets", lambda *_: sets)
        path = tmp_path_factory.mktemp("detect") / "run"
        options = RunOptions(out=path, source="scratch")
        run_in_folder(DetectionJob, resolved(), torch.device("cpu"), options, lambda _: None)
    return path


def film(path: Path, left: tuple[int, ...], right: tuple[int, ...], frames: int = 50) -> Path:
    """Write two seconds of two figures of these colors, on gray noise."""
    rng = np.random.default_rng(0)
    picture = rng.integers(90, 166, (32, 48, 3)).astype(np.uint8)
    picture[4:26, 2:22], picture[4:26, 25:45] = left, right
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv444p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


BOXES = """\
{0},0.5,0.04,0.12,0.46,0.82,,0.9
{0},0.5,0.52,0.12,0.94,0.82,,0.8
{0},1.5,0.04,0.12,0.46,0.82,,1
"""


def typed(words: list[str]) -> int:
    """Run a command; return its exit code."""
    with pytest.raises(SystemExit) as left:
        main(words)
    assert isinstance(left.value.code, int)
    return left.value.code


def answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "actions.csv").open() as file:
        return list(csv.DictReader(file))


def test_each_box_has_its_own_actions_in_rows_and_in_the_film(run: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "two.mp4", (255, 0, 0), (0, 0, 255))
    (tmp_path / "boxes.csv").write_text(BOXES.format("two"))
    out = tmp_path / "out"
    words = ["detect", str(path), "--from", str(run), "--boxes", str(tmp_path / "boxes.csv")]
    assert typed([*words, "--out", str(out), "--least", "0", "-q"]) == 0
    rows = answers(out)
    assert len(rows) == 3 * 3
    first = [(row["second"], row["action"]) for row in rows[::3]]
    assert first == [("0.500", "red"), ("0.500", "blue"), ("1.500", "red")]
    assert rows[0]["x1"] == "0.04000"
    scores = [float(row["score"]) for row in rows]
    assert scores[0] <= 0.9  # times the person's
    assert scores[0] > 0.5 > scores[1]
    listed = json.loads((out / "actions.json").read_text())
    assert [len(moment["boxes"]) for moment in listed] == [2, 1]
    assert listed[0]["boxes"][1]["actions"]["blue"] == scores[3]  # both of five digits
    with av.open(str(out / "two.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 50
    assert frames[0].shape == (320, 480, 3)  # shown larger, so that words are read
    # The second box is gone once the next moment is nearer.
    edge = np.array([frame[200, 448:456].astype(int).mean() for frame in frames])
    assert np.abs(edge[:20] - edge[0]).max() < 6
    assert abs(edge[0] - edge[-1]) > 10


def test_without_boxes_the_whole_frame_is_one_and_it_is_said(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = film(tmp_path / "one.mkv", (0, 255, 0), (0, 255, 0))
    (tmp_path / "no film.mp4").write_bytes(b"nothing" * 99)
    words = ["detect", str(path), str(tmp_path / "no film.mp4"), "--from", str(run), "--every"]
    code = typed([*words, "0.5s", "--no-film", "--json", "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert code == 6
    result = json.loads(said.out)
    assert (result["moments"], result["films"], result["boxes"]) == (4, {}, "full-frame")
    assert [each["input"].endswith("no film.mp4") for each in result["errors"]] == [True]
    assert "the whole frame is one box" in said.err
    rows = answers(tmp_path / "out")
    assert {row["second"] for row in rows} == {"0.250", "0.750", "1.250", "1.750"}
    assert {(row["x1"], row["y2"], row["person"]) for row in rows} == {
        ("0.00000", "1.00000", "1.00000")
    }


def test_rows_that_are_not_used_are_named() -> None:
    """Boxes without extent, and those of films that are not given."""
    corners = [(0.2, 0.2, 0.2, 0.9), (0.5, 0.5, 0.4, 0.9), (1.2, 0.0, 1.4, 1.0), (-1, 0, 2, 1)]
    rows = [BoxRow(line, "a", 0.5, corner) for line, corner in enumerate(corners, 2)]
    rows += [BoxRow(6, "b", 0.5, corners[0]), BoxRow(7, "a", 1.5)]
    found = of_rows(rows, [NamedFile("films/a.mp4", "a.mp4", "video")], "list.csv")
    assert found.left_out == [
        "list.csv: 3 boxes without extent in the picture, left out (line 2, line 3, line 4)",
        "list.csv: 1 rows of no film that is given (b)",
    ]
    (first, second) = found.moments["a.mp4"]
    assert first.corners.tolist() == [[0, 0, 1, 1]]
    assert (second.second, len(second)) == (1.5, 0)
    good = of_rows(rows[3:4], [NamedFile("films/a.mp4", "a.mp4", "video")], "list.csv")
    assert good.left_out == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--boxes", "nowhere.csv"], 2, "there is no file nowhere.csv"),
        (["--boxes", "other.csv"], 2, "has boxes of other, and of none of the films"),
        (["--boxes", "bad.csv"], 6, "bad.csv:2: x1 is no number"),
        (["--boxes", "other.csv", "--every", "1s"], 2, "means nothing beside a list"),
        (["--boxes", "full-frame", "--persons", "p.pth"], 2, "either --boxes or --persons"),
        (["--persons", "p.pth"], 2, "there is no file p.pth"),
        (["--persons", "p.pth", "--persons-model", "yolo"], 2, "no detector yolo"),
        (["--persons", "other.csv"], 3, "is no file of weights"),
    ],
)
def test_what_cannot_be_is_refused(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    film(tmp_path / "a.mp4", (255, 0, 0), (0, 255, 0), frames=5)
    (tmp_path / "other.csv").write_text(BOXES.format("other"))
    (tmp_path / "bad.csv").write_text("video,second,x1,y1,x2,y2\na,0,left,0,1,1\n")
    model = ["--persons-model", "fasterrcnn_mobilenet_v3_large_320_fpn"]
    assert typed(["detect", "a.mp4", "--from", str(run), "--no-film", *model, *words]) == code
    assert said in capsys.readouterr().err


def test_words_are_drawn_beside_their_boxes_and_never_outside() -> None:
    frame = np.full((64, 96, 1), 128, np.uint8)
    boxes = [
        Shown((0.0, 0.0, 1.0, 1.0), ("walk 0.91", "talk 0.40")),
        Shown((0.9, 0.9, 1.0, 1.0), ("a very long action with many words 0.12",)),
        Shown((0.2, 0.2, 0.2, 0.2), ()),
    ]
    shown = np.asarray(drawn(frame, boxes))
    assert shown.shape == (320, 480, 3)
    dark = (shown == (20, 20, 20)).all(axis=-1)
    assert dark.sum() > 2000  # the ground of words
    assert (shown[dark.any(axis=1)][:, :, 0] == 255).sum() > 100  # and words on it


def test_words_of_a_second_box_in_one_place_hide_neither() -> None:
    """As a detector finds one person twice, low in the picture: words are beside the second."""
    frame = np.full((360, 480, 3), 128, np.uint8)
    lines = ("one 0.91", "two 0.40", "three 0.22")
    twice = [Shown((0.7, 0.62, 0.9, 0.92), lines), Shown((0.72, 0.64, 0.92, 0.94), lines)]
    one, both = (np.asarray(drawn(frame, boxes)) for boxes in (twice[:1], twice))
    dark = (both == (20, 20, 20)).all(axis=-1)
    rows, columns = slice(226, 330), slice(348, 430)
    assert not dark[rows, columns].any()  # of what is in both boxes nothing is hidden
    more = dark & ~(one == (20, 20, 20)).all(axis=-1)
    assert more.sum() > 500


def test_persons_are_found_by_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import detection

    name = "fasterrcnn_mobilenet_v3_large_320_fpn"
    torch.manual_seed(0)
    model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None)
    with torch.no_grad():  # whatever it looks at is a person, surely
        model.roi_heads.box_predictor.cls_score.bias.zero_()[1] = 99
    torch.save(model.state_dict(), tmp_path / "p.pth")
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    find = PersonDetector(name, tmp_path / "p.pth", torch.device("cpu"), 0.5)
    with torch.inference_mode():
        (expected,) = model.eval()([torch.from_numpy(frame).permute(2, 0, 1) / 255])
    found = find(frame)
    assert len(found.corners) == len(found.scores) == int((expected["labels"] == 1).sum()) > 0
    ours = np.array(found.corners) * (64, 48, 64, 48)
    close(ours, expected["boxes"], terms=2)
    with pytest.raises(WeightsError, match="holds no weights of fcos_resnet50_fpn"):
        PersonDetector("fcos_resnet50_fpn", tmp_path / "p.pth", torch.device("cpu"), 0.5)


@pytest.mark.parametrize(
    "name", ["asl20/videos/asl_no/no.mkv", "arid6-bright/videos/Run/Run_1_1.mp4"]
)
def test_real_clips_of_the_whole_frame(
    run: Path, shared_data: Path, tmp_path: Path, name: str
) -> None:
    path = shared_data / name
    words = ["detect", str(path), "--from", str(run), "--out", str(tmp_path / "out"), "-q"]
    assert typed([*words, "--least", "0"]) == 0
    with av.open(str(path)) as before, av.open(str(tmp_path / "out" / f"{path.stem}.mp4")) as after:
        counts = [sum(1 for _ in film.decode(video=0)) for film in (before, after)]
    assert counts[0] == counts[1]
    assert {row["x2"] for row in answers(tmp_path / "out")} == {"1.00000"}
