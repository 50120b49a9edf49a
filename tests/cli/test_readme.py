"""Every command of README: each parses, and each is run, the long ones with fewer steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer
from painted_models import draw_clip, draw_picture
from PIL import Image

from maekit.cli.app import command_tree
from maekit.recipe.load import find

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

README = Path(__file__).parents[2] / "README.md"
TEXT = README.read_text(encoding="utf-8")

# Not run here: they install, want the network or files that only their authors publish, or run for
# minutes or in processes of their own what tests/ablate and the tests of ranks do in small.
ELSEWHERE = (
    "maekit pretrain quickstart pretrain.steps=6 --devices",
    "maekit predict photos/ --from runs/drawn_images/2 --devices",
    "maekit pretrain mine.yaml --out runs/mine/1 --resume --extend",  # tests/cli/test_extend.py
    "maekit ablate ablations/mae_mask_sampling_tiny",
    "maekit report sweep",
    "pip install",
    "maekit pretrain maekit-latent/ijepa_tiny",  # plugins/test_life.py trains it
    "pytest",
    "pre-commit install",
    "bash .ci/run",
    "maekit weights get",
    "maekit evaluate mae_finetuned_vit_base.pth",
    "maekit evaluate checkpoint-best.pth",
    "maekit weights inspect dino.pth",
    "maekit weights convert dino.pth",
    "maekit embed photos/ --from dino.pth",
)
FEW = "data.train.count=48 data.val.count=24"
SMALL_VIDEO = (
    "pretrain.steps=1 ~pretrain.validate ~pretrain.pictures data.size=32 pretrain.batch.global=2 "
    "'model.backbone={name: video-vit, width: 16, depth: 1, heads: 2, patch: [2, 16, 16]}' "
    "'model.decoder={name: vit, width: 16, depth: 1, heads: 2}'"
)
# What is laid over the commands that begin so.
SHORTER = {
    "maekit pretrain quickstart data.": "pretrain.steps=2 data.workers=0",
    "maekit pretrain quickstart 'log=": f"{FEW} pretrain.steps=2 data.workers=0",
    "maekit pretrain quickstart_video data.": "pretrain.steps=2 data.workers=0",
    "maekit pretrain quickstart_video": f"{FEW} pretrain.steps=2 data.workers=0",
    "maekit pretrain recipes/quickstart.yaml": f"{FEW} pretrain.steps=2 data.workers=0",
    "maekit pretrain recipes/videomae_k400.yaml": SMALL_VIDEO,
    "maekit pretrain drawn_images": f"{FEW} pretrain.steps=2 data.workers=0",
    "maekit finetune drawn_images": f"{FEW} finetune.steps=2 finetune.data.train.count=24",
    "maekit probe drawn_images": f"{FEW} data.workers=0",
    "maekit finetune quickstart": "finetune.epochs=1 data.workers=0",
    "maekit tokenizer dvae_tiny": "tokenizer.steps=2 data.workers=0",
    "maekit pretrain own.yaml": f"{FEW} pretrain.steps=2 data.workers=0",
    "maekit pretrain mine.yaml": "pretrain.steps=2 data.workers=0",
    "maekit finetune mine.yaml": "finetune.epochs=1 data.workers=0",
    "maekit finetune tiny_actions": "data.train.count=8 finetune.epochs=1 data.workers=0",
    "maekit probe mine.yaml": "data.workers=0",
    "maekit weights convert mae_pretrain": "--heads 3 --decoder-heads 8",
    "maekit bench quickstart": "pretrain.batch.global=4 data.workers=0",
}


def commands() -> list[str]:
    """Return every command of the blocks that hold commands, one a line, without remarks."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            found += [" ".join(each.split()) for each in re.sub(r"\s+# .*", "", line).split("&&")]
    return found


COMMANDS = commands()


def test_lines_are_short_and_blocks_are_marked() -> None:
    assert len(COMMANDS) > 30
    assert max(map(len, TEXT.splitlines())) <= 110
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert {language for language, _ in blocks} == {"", "sh", "yaml", "python"}
    plain = [text for language, text in blocks if language == ""]
    assert not re.findall("^maekit ", "\n".join(plain), re.MULTILINE)


def test_every_command_is_one_that_there_is() -> None:
    tree = command_tree()
    for line in COMMANDS:
        if line.startswith(("pip", "pytest", "pre-commit", "bash")):
            continue
        words = shlex.split(line)[1:]
        command, context = tree, typer.Context(tree)
        while hasattr(command, "commands"):
            name = words.pop(0)
            command = command.commands[name]
        with command.make_context(name, words, parent=context) as parsed:  # refuses what is wrong
            recipe = parsed.params.get("recipe")
        if recipe not in (None, "mine.yaml", "own.yaml") and not recipe.startswith("maekit-"):
            find(recipe)


def test_every_recipe_that_is_named_is_there() -> None:
    for name in ("videomae_k400_b1600", "videomae_ssv2_s2400", "videomae_v2_g", "mae_in1k_vit_l"):
        find(name)
    for stem, ends in re.findall(
        r"`((?:videomae|mae)_\w+)`(?: \([^)]*?((?:`_\w+`[, ]*)+)\))?", TEXT
    ):
        find(stem)
        for end in re.findall(r"`_(\w+)`", ends):
            assert any(
                (README.parent / "recipes" / f"{base}_{end}.yaml").is_file()
                for base in (stem, stem.removesuffix("_b"))
            ), (stem, end)


def lay_out() -> None:
    """Put what README's commands read into this folder."""
    for place in range(12):
        draw_picture(Path(f"my/photos/{place}.png"), place)
        draw_picture(Path(f"my/other-photos/{place}.png"), 100 + place)
        draw_picture(Path(f"labeled/{('ball', 'box')[place % 2]}/{place}.png"), place)
    for place in range(3):
        draw_picture(Path(f"photos/{place}.jpg"), place)
        for folder in ("my/clips", "clips", "lists"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            draw_clip(Path(folder) / f"{place}.mp4", frames=40)
    draw_picture(Path("photo.jpg"))
    draw_clip(Path("film.mp4"), frames=40)
    mask = Image.new("L", (56, 40))
    mask.paste(255, (0, 0, 28, 40))
    mask.save("mask.png")
    for name in ("train", "val"):
        Path(f"lists/{name}.csv").write_text("path,label\n0.mp4,0\n1.mp4,1\n2.mp4,0\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_runs(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("maekit.engine.bench.SECONDS", 0.2)
    lay_out()
    Path("recipes").symlink_to(README.parent / "recipes")
    for line in COMMANDS:
        if line.startswith(ELSEWHERE):
            continue
        more = next((SHORTER[key] for key in SHORTER if line.startswith(key)), "")
        if line.startswith("maekit weights inspect"):  # stands in for the published one
            words = ("runs/quickstart/1", "mae_pretrain_vit_base_full.pth", "--to", "mae")
            assert cli("weights", "convert", *words).code == 0
        done = cli(*shlex.split(f"{line} {more}")[1:])
        assert done.code == 0, f"{line}: {done.err}"
    for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        few = "pretrain.steps=2', 'data.train.count=48', 'data.val.count=24'".replace("'", '"')
        exec(block.replace('pretrain.steps=20"', few), {"maekit": __import__("maekit")})
