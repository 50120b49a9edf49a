"""What a set leaves out: one line in the log, in result.json and of a dry run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable

LINE = "left out of data.train: 3 .cr2 files, 1 .txt file, 4 further pages or frames"


def test_pretrain_tells_what_it_leaves_out(cli: Callable[..., object], small: str) -> None:
    folder = Path("pictures/train")
    for name in ("a.cr2", "b.cr2", "c.CR2", "note.txt"):
        (folder / name).write_text("no picture")
    frames = [Image.new("RGB", (32, 32), (40 * n, 0, 0)) for n in range(5)]
    frames[0].save(folder / "moves.gif", save_all=True, append_images=frames[1:])
    expected = {
        ".cr2 files": 3,
        ".txt files": 1,
        "further pages or frames in picture files": 4,
    }
    words = ("pretrain.epochs=1.01", "pretrain.batch.global=17", "data.workers=1", "~data.val")
    done = cli("pretrain", small, *words, "--out", "run", "--device", "cpu")
    assert done.code == 0, done.err
    log = Path("run/log.txt").read_text()
    assert LINE in log
    assert log.count("moves.gif holds 4 further pages or frames in picture files") == 1
    result = json.loads(Path("run/result.json").read_text())
    assert result["left_out"] == {"data.train": expected}
    both = ("data.val.path=pictures/train", "pretrain.checkpoint.steps=900")
    dry = cli("pretrain", small, *words[:-1], *both, "--dry-run", "--json", "--device", "cpu")
    assert "51 of 51 samples of data.val are files of data.train" in dry.err
    assert "checkpoint.steps 900, validate.every 6: beyond the end of 3 updates" in dry.err
    of_files = json.loads(dry.out)["left_out"]["data.train"]
    assert {key: of_files[key] for key in (".cr2 files", ".txt files")} == {
        ".cr2 files": 3, ".txt files": 1,
    }  # fmt: skip
