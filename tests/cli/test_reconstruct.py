"""``maekit reconstruct``: files in, pictures and honest scores out."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from painted_models import CLIP, draw_clip, draw_picture, files, items, save_model
from PIL import Image

from maekit.cli import reconstruct as command
from maekit.visualize import movies
from maekit.visualize.movies import save
from maekit.visualize.panel import line

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    from maekit.visualize.reconstruct import Outcome

    Cli = Callable[..., Result]

KEYS = {
    "input", "output", "psnr", "ssim", "gain_db", "fills", "truth_statistics", "ceiling", "hidden",
    "error",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("target", ["pixel", "norm-pixel"])
@pytest.mark.parametrize("constant", [0.0, 0.3, -0.3, -1.0])
@pytest.mark.parametrize("kind", ["photo", "colors", "noise"])
def test_whoever_predicts_a_constant_gains_nothing(
    cli: Cli, target: str, constant: float, kind: str
) -> None:
    save_model(Path("w.safetensors"), target=target, constant=constant)
    for seed in range(4):
        draw_picture(Path(f"light/{seed}.png"), seed)
        rng = np.random.default_rng(seed)
        if kind != "photo":
            cells = rng.integers(0, 256, (4, 6, 3) if kind == "colors" else (40, 60, 3))
            picture = Image.fromarray(cells.astype(np.uint8)).resize((60, 40))
            picture.save(f"light/{seed}.png")
        # With its negative, of the same name and so with the same mask, no constant can be lucky.
        negative = 255 - np.asarray(Image.open(f"light/{seed}.png"))
        Path("dark").mkdir(exist_ok=True)
        Image.fromarray(negative).save(f"dark/{seed}.png")
    done = cli("reconstruct", "light", "dark", "--from", "w.safetensors", "--json", "-q")
    assert done.code == 0, done.err
    assert json.loads(done.out)["pooled"]["gain_db"] <= 0.001
    if constant == 0:
        assert max(each["gain_db"] for each in items(done)) <= 0.001


def test_scores_are_those_of_the_pictures_and_leaks_are_apart(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("a.png"))
    done = cli("reconstruct", "a.png", "--from", "w.safetensors", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out) == json.loads(Path("maekit-out/1/result.json").read_text())
    [item] = items(done)
    assert item.keys() == KEYS
    assert item["hidden"] == 0.75
    assert item["error"] is None
    best = max(each["psnr"] for each in item["fills"].values())
    assert item["gain_db"] == pytest.approx(item["psnr"] - best, abs=1e-3)
    assert set(item["fills"]) == {
        "visible_mean", "nearest_visible", "interpolated_mean", "zero_prediction",
    }  # fmt: skip
    # The leak: an untrained model looks good with the hidden patches' own statistics.
    assert item["truth_statistics"]["psnr"] > item["psnr"] + 1
    assert item["ceiling"] > item["psnr"]
    assert files("maekit-out/1") == ["a.png", "result.json"]
    assert "target norm-pixel" in done.err
    save_model(Path("w.safetensors"), target="pixel")
    [item] = items(cli("reconstruct", "a.png", "--from", "w.safetensors", "--json", "-q"))
    assert (item["truth_statistics"], item["ceiling"]) == (None, None)
    assert Path(item["output"]) == Path("maekit-out/2/a.png")


def test_two_calls_give_the_same_bytes_and_other_inputs_change_nothing(cli: Cli) -> None:
    save_model(Path("i.safetensors"))
    save_model(Path("v.safetensors"), clip=CLIP)
    draw_picture(Path("a.png"))
    draw_picture(Path("b.png"), 1)
    draw_clip(Path("c.mp4"))
    for weights in ("i", "v"):
        for out, inputs in (("1", ["a.png", "c.mp4"]), ("2", ["b.png", "a.png", "c.mp4"])):
            words = ("--from", f"{weights}.safetensors", "--out", f"{weights}{out}")
            assert cli("reconstruct", *inputs, *words).code == 0
        for name in ("a.png", "c.mp4", "c.gif", "c.png"):
            assert (
                Path(f"{weights}1/{name}").read_bytes() == Path(f"{weights}2/{name}").read_bytes()
            )
    results = [json.loads(Path(f"i{out}/result.json").read_text()) for out in (1, 2)]
    one, two = ({each["input"]: {**each, "output": 0} for each in r["items"]} for r in results)
    assert {name: two[name] for name in one} == one
    cli("reconstruct", "a.png", "--from", "i.safetensors", "--out", "other", "--seed", "1")
    assert Path("other/a.png").read_bytes() != Path("i1/a.png").read_bytes()


def test_bad_files_are_named_and_the_others_done(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("in/good.png"))
    draw_picture(Path("in/deep/good.png"), 1)
    Path("in/bad.png").write_bytes(Path("in/good.png").read_bytes()[:300])
    done = cli("reconstruct", "in", "gone.png", "--from", "w.safetensors", "--out", "o", "--json")
    assert done.code == 6
    assert json.loads(done.out)["exit"] == 6
    found = {each["input"]: each for each in items(done)}
    assert found["in/bad.png"]["output"] is None
    assert "cannot be decoded" in found["in/bad.png"]["error"]
    assert found["gone.png"]["error"] == "no such file or folder"
    assert "in/bad.png" in done.err
    assert files("o") == ["good-2.png", "good.png", "result.json"]


def test_the_first_signal_ends_in_order(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(Path("w.safetensors"))
    for place in range(4):
        draw_picture(Path(f"in/{place}.png"), place)
    whole = cli("reconstruct", "in", "--from", "w.safetensors", "--out", "whole", "--json")
    written: list[str] = []

    def interrupting(outcome: Outcome, folder: Path, stem: str) -> Path:
        written.append(stem)
        if len(written) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return save(outcome, folder, stem)

    monkeypatch.setattr(command, "save", interrupting)
    stopped = cli("reconstruct", "in", "--from", "w.safetensors", "--out", "o", "--json")
    assert stopped.code == 130
    assert "2 of 4 files were done" in stopped.err
    found = json.loads(Path("o/result.json").read_text())
    assert found["exit"] == 130
    kept = [{**each, "output": 0} for each in found["items"]]
    assert kept == [{**each, "output": 0} for each in items(whole)[:2]]
    assert files("o") == ["0.png", "1.png", "result.json"]


def test_pictures_carry_the_names_of_file_and_weights(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def noting(text: str, width: int) -> Image.Image:
        written.append(text)
        return line(text, width)

    monkeypatch.setattr(movies, "line", noting)
    save_model(Path("w.safetensors"))
    draw_picture(Path("in/a.png"))
    draw_clip(Path("in/c.mp4"))
    assert cli("reconstruct", "in", "--from", "w.safetensors").code == 0
    assert cli("reconstruct", "in/a.png", "--from", "demo").code == 0
    assert {"a.png · w.safetensors", "c.mp4 · w.safetensors", "a.png · demo weights"} <= set(
        written
    )


def test_a_model_far_from_its_own_size_says_so(cli: Cli) -> None:
    save_model(Path("w.safetensors"))  # of 16x24
    draw_picture(Path("large.png"), size=(48, 64))
    for words, warned in ((("--native",), True), ((), False)):
        done = cli("reconstruct", "large.png", "--from", "w.safetensors", *words)
        assert done.code == 0
        assert ("48x64 pixels are 8 times the 16x24" in done.err) == warned


def test_without_from_the_newest_run_that_has_a_decoder(cli: Cli, small: str) -> None:
    assert cli("pretrain", small, "pretrain.steps=2", "-q").code == 0
    Path("runs/other/1").mkdir(parents=True)
    save_model(Path("runs/other/1/weights.safetensors"), decoder=False)
    draw_picture(Path("a.png"))
    done = cli("reconstruct", "a.png", "--json")
    assert done.code == 0, done.err
    assert "runs/small/1/weights.safetensors (the newest finished run; others: " in done.err
    Path("runs/small/1/weights.safetensors").write_bytes(b"cut short")
    saved = "runs/small/1/checkpoints/step-00000002/model.safetensors"
    done = cli("reconstruct", "a.png")
    assert done.code == 0, done.err
    assert f"{saved} (the newest finished run; others: --from RUN, --from demo)" in done.err
    Path(saved).write_bytes(b"cut short too")
    done = cli("reconstruct", "a.png")
    assert done.code == 0, done.err
    assert "weights: demo weights" in done.err
    assert "passed over runs/small/1: none of the 1 checkpoints is whole" in done.err


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_photos_are_upright(cli: Cli, orientation: int) -> None:
    save_model(Path("w.safetensors"))
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12], pixels[:8, 12:], pixels[8:, :12] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    image = Image.fromarray(pixels)
    if undo is not None:
        image = image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save("turned.png", exif=exif)
    assert cli("reconstruct", "turned.png", "--from", "w.safetensors", "--out", "o").code == 0
    shown = np.asarray(Image.open("o/turned.png"))[-102:-6, 6:150]  # enlarged six times
    corners = [shown[24, 36], shown[24, 108], shown[72, 36]]
    assert [each.tolist() for each in corners] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]]


def test_videos_leave_a_film_a_gif_and_a_strip(cli: Cli) -> None:
    save_model(Path("w.safetensors"), clip=CLIP)
    draw_clip(Path("c.mp4"))
    draw_clip(Path("short.mp4"), frames=2)
    done = cli("reconstruct", "c.mp4", "short.mp4", "--from", "w.safetensors", "--out", "o")
    assert done.code == 0, done.err
    assert "2 frames, too few for a clip of 4: padded by the last one" in done.err
    assert files("o") == [
        "c.gif", "c.mp4", "c.png", "result.json", "short.gif", "short.mp4", "short.png",
    ]  # fmt: skip
    with av.open("o/c.mp4") as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert film.streams.video[0].average_rate == 10
    with Image.open("o/c.gif") as gif:
        assert (gif.n_frames, gif.info["duration"]) == (4, 100)  # type: ignore[attr-defined]
        assert abs(gif.height - frames[0].shape[0]) <= 1
    assert len(frames) == 4
    assert (frames[0] != frames[3]).any()
    strip = Image.open("o/c.png")
    assert strip.height > 5 * 128  # five stages below each other
    assert strip.width > 4 * 128


def test_images_for_video_models_and_videos_for_image_models(cli: Cli) -> None:
    save_model(Path("i.safetensors"))
    save_model(Path("v.safetensors"), clip=CLIP)
    draw_picture(Path("a.png"))
    draw_clip(Path("c.mp4"), frames=20)
    done = cli("reconstruct", "a.png", "--from", "v.safetensors", "--out", "v", "--whole")
    assert done.code == 0, done.err
    assert files("v") == ["a.png", "result.json"]
    done = cli("reconstruct", "c.mp4", "--from", "i.safetensors", "--out", "i", "--attention")
    assert done.code == 0, done.err
    with Image.open("i/c.gif") as gif:
        assert gif.n_frames == 16  # type: ignore[attr-defined]


def test_native_keeps_the_size_cut_to_whole_patches(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("a.png"), size=(131, 150))
    Image.new("RGB", (3, 50)).save("narrow.png")
    done = cli("reconstruct", "a.png", "narrow.png", "--from", "w.safetensors", "--native",
               "--out", "o", "--json")  # fmt: skip
    assert done.code == 6
    assert "131x150 pixels are cut to whole patches, 128x148" in done.err
    original = np.asarray(Image.open("a.png"))[1:129, 1:149]
    twice = np.asarray(Image.open("o/a.png"))[-262:-6, 6:302]  # so that a tile can be seen
    assert np.array_equal(twice, original.repeat(2, axis=0).repeat(2, axis=1))
    assert "less than one patch" in items(done)[1]["error"]


def test_native_sizes_that_memory_may_not_hold_are_refused(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("large.png"), size=(200, 200))  # 2,500 tokens
    draw_clip(Path("large.mp4"), frames=16, size=(240, 320))  # 4,800 tokens a frame
    words = ("--from", "w.safetensors", "--native", "--json")
    assert items(cli("reconstruct", "large.png", *words))[0]["error"] is None
    [item] = items(cli("reconstruct", "large.png", *words, "--attention"))
    assert "2,500 tokens, more than 2,048 (leave --native or --attention out" in item["error"]
    [item] = items(cli("reconstruct", "large.mp4", *words))
    assert "4,800 tokens in each of 16 frames, more than 4,096" in item["error"]


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_and_floats_of_any_range(cli: Cli, channels: int) -> None:
    save_model(Path("w.safetensors"), channels=channels, target="pixel", constant=0)
    rng = np.random.default_rng(0)
    np.save("a.npy", (rng.random((20, 30, channels)) * 4 - 2).astype(np.float32))
    done = cli("reconstruct", "a.npy", "--from", "w.safetensors", "--json")
    assert done.code == 0, done.err
    [item] = items(done)
    assert math.isfinite(item["psnr"])
    assert item["gain_db"] < 0.5
    draw_picture(Path("a.png"))
    bad = cli("reconstruct", "a.png", "--from", "w.safetensors", "--json")
    if channels == 1:
        assert bad.code == 0, bad.err
    else:
        assert bad.code == 6
        assert items(bad)[0]["error"].startswith(f"has 3 channels, the model {channels} (")


def test_a_model_of_no_numbers_is_told_of(cli: Cli) -> None:
    save_model(Path("w.safetensors"), constant=math.nan)
    draw_picture(Path("a.png"))
    done = cli("reconstruct", "a.png", "--from", "w.safetensors", "--json")
    assert done.code == 4
    assert "holds NaN or infinity" in done.err


def test_names_that_look_like_options(cli: Cli) -> None:
    save_model(Path("w.safetensors"))
    draw_picture(Path("-x.png"))
    done = cli("reconstruct", "--from", "w.safetensors", "--out", "o", "--", "-x.png")
    assert done.code == 0, done.err
    assert files("o") == ["-x.png", "result.json"]


def test_every_hard_file_is_shown_or_named(cli: Cli, shared_data: Path) -> None:
    save_model(Path("w.safetensors"))
    folder = shared_data / "odd" / "images"
    done = cli("reconstruct", str(folder), "--from", "w.safetensors", "--out", "o", "--json", "-q")
    assert done.code == 6
    bad = {Path(each["input"]).name for each in items(done) if each["error"]}
    assert bad == {
        "pillow_broken_data_stream.png", "pillow_decompression_bomb.gif",
        "pillow_truncated_image.png", "pillow_truncated_jpeg.jpg",
    }  # fmt: skip
