"""Wheels alone, in a fresh environment: what somebody has who installs maekit and its plugins.

Takes twenty minutes of two cores, and some gigabytes for torch:
``pytest -m nightly plugins/test_wheels.py``. With ``MAEKIT_WHEELS=FOLDER`` the environment stays
there, and is used again, with wheels that are built anew.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import test_life
from PIL import Image
from safetensors.numpy import load_file
from test_life import LIVES

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(path.parent for path in ROOT.glob("plugins/maekit-*/pyproject.toml"))
FEW = [
    *(word for word in test_life.FEW if "steps=4" not in word and "checkpoint" not in word),
    "pretrain.steps=40",
    "pretrain.checkpoint={steps: 5}",
]
# Options without which a part is not built, as its README gives them.
NEEDED = {
    "maekit-features": ["teacher.weights=runs/teacher", "teacher.width=192"],
    "maekit-hdf5": [
        "hdf5.path=data/hdf5/train.h5", "hdf5-spectrogram.path=data/hdf5/train.h5",
        "hdf5-spectrogram.key=signal", "hdf5-spectrogram.window=64",
    ],
}  # fmt: skip
# Several commands in one process, as most of each would be importing torch.
SEVERAL = """
import contextlib, io, json, sys, numpy, torch, maekit
from maekit.__main__ import main
def load(run):
    model = maekit.load(run)
    tokens = model.encode(torch.zeros(2, len(model.statistics.mean), *model.clip))
    assert bool(tokens.isfinite().all())
    print(*tokens.shape)
for words in json.loads(sys.argv[1]):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.argv = ["maekit", *words]
        try:
            load(words[1]) if words[0] == "load" else main()
        except SystemExit as end:
            code = int(end.code or 0)
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""
MODULES = """
import atexit, sys
from maekit.__main__ import main
heavy = ("torch", "timm", "h5py", "numpy", "av")
atexit.register(lambda: print("modules:", *sorted(
    m for m in sys.modules if m.startswith("maekit_") or m in heavy), file=sys.stderr))
main()
"""
TEN_LINES = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str) -> None:
    print(f"hello {name}")
@app.command()
def bye(name: str) -> None:
    print(f"bye {name}")
app()
"""

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3000)]


class Done(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str


class Site:
    """An environment with nothing but wheels, and a folder to work in."""

    def __init__(self, venv: Path, work: Path) -> None:
        self.bin, self.work = venv / "bin", work
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.environment = kept | {"XDG_CACHE_HOME": str(work / "cache"), "OMP_NUM_THREADS": "1"}

    def __call__(self, *words: str, program: str = "maekit") -> Done:
        done = subprocess.run(
            [str(self.bin / program), *words],
            cwd=self.work, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def well(self, *words: str, program: str = "maekit") -> str:
        """Run what must end with 0, and return what it printed."""
        done = self(*words, program=program)
        assert done.code == 0, f"{words}: {done.code}\n{done.err[-3000:]}"
        return done.out

    def several(self, *commands: Sequence[str]) -> list[Done]:
        """Run commands of maekit, and `load RUN`, one after the other."""
        out = self.well("-c", SEVERAL, json.dumps(commands), program="python")
        return [Done(*json.loads(line)) for line in out.splitlines()]

    def interrupted(self, run: str, *words: str) -> None:
        """Start a training, and press Ctrl-C once it has saved something."""
        process = subprocess.Popen(
            [str(self.bin / "maekit"), *words, "--out", run],
            cwd=self.work, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        while process.poll() is None and not (self.work / run / "checkpoints/last").exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        assert process.returncode == 75, err.decode()[-3000:]
        assert not (self.work / run / "weights.safetensors").exists()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Build all wheels, install them into an environment of their own, and make sample data."""
    work = tmp_path_factory.mktemp("work")
    kept = os.environ.get("MAEKIT_WHEELS")
    home = Path(kept) if kept else tmp_path_factory.mktemp("wheels")
    found = Site(home / "venv", work)
    uv = shutil.which("uv")
    shutil.rmtree(home / "dist", ignore_errors=True)
    sources = [str(path) for path in (ROOT, *FOLDERS)]
    if uv is not None:
        for source in sources:
            build = [uv, "build", "--quiet", "--wheel", "--out-dir", str(home / "dist"), source]
            subprocess.run(build, check=True)
        if not found.bin.exists():
            make = [uv, "venv", "--quiet", "--python", sys.executable, str(home / "venv")]
            subprocess.run(make, check=True)
        install = [uv, "pip", "install", "--quiet", "--python", str(found.bin / "python")]
    else:
        wheel = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(home / "dist")]
        subprocess.run([*wheel, *sources], check=True)
        subprocess.run([sys.executable, "-m", "venv", str(home / "venv")], check=True)
        install = [str(found.bin / "python"), "-m", "pip", "install", "--quiet"]
    wheels = [str(path) for path in sorted((home / "dist").glob("*.whl"))]
    assert len(wheels) == 1 + len(FOLDERS)
    subprocess.run([*install, *wheels], check=True)
    again = ["--reinstall", "--no-deps"] if uv is not None else ["--force-reinstall", "--no-deps"]
    subprocess.run([*install, *again, *wheels], check=True)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(work / "picture.png")
    found.well("-m", "maekit_hdf5.sample", "data/hdf5", program="python")
    teacher = [*test_life.PICTURES, *test_life.FEW, "--out", "runs/teacher"]
    found.well("pretrain", "quickstart", *teacher)
    return found


def test_nothing_is_of_this_checkout(site: Site) -> None:
    code = "import maekit, maekit_hiera; print(maekit.__file__, maekit_hiera.__file__)"
    for file in site.well("-c", code, program="python").split():
        assert Path(file).is_relative_to(site.bin.parent)


@pytest.mark.parametrize("words", [["--help"], ["plugins", "list"], ["recipes", "list"]])
def test_looking_around_imports_no_plugin(site: Site, words: Sequence[str]) -> None:
    done = site("-c", MODULES, *words, program="python")
    assert done.code == 0, done.err
    assert done.err.splitlines()[-1] == "modules:"
    if words != ["--help"]:
        assert all(folder.name in done.out for folder in FOLDERS)


def test_help_costs_little_more_than_typer_itself(site: Site, tmp_path: Path) -> None:
    (tmp_path / "ten_lines.py").write_text(TEN_LINES, encoding="utf-8")

    def seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        site.well(*words, program="python")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    own = ("-c", "from maekit.__main__ import main; main()", "--help")
    ratios = [seconds(*own) / seconds(str(tmp_path / "ten_lines.py"), "--help") for _ in range(15)]
    assert statistics.median(ratios) <= 1.3


@pytest.mark.parametrize("name", [folder.name for folder in FOLDERS])
def test_plugins_check(site: Site, name: str) -> None:
    found = json.loads(site.well("plugins", "check", name, *NEEDED.get(name, ()), "--json"))
    parts = found["parts"]
    assert parts
    assert all(each["distribution"] == name and each["promises"] for each in parts)


@pytest.mark.parametrize("name", LIVES)
def test_a_whole_life(site: Site, name: str) -> None:
    life = LIVES[name]
    words = ["pretrain", life.recipe, *life.words, *FEW, "--device", "cpu"]
    whole, halves = f"{name}-whole", f"{name}-halves"
    site.interrupted(halves, *words)
    of_it = ["--from", whole, "--out"]
    *done, reconstructed = site.several(
        [*words, "--out", halves, "--resume"],
        [*words, "--out", whole],
        ["load", whole],
        ["embed", "--set", "val", *of_it, f"{name}.npz"],
        *([["embed", "picture.png", *of_it, f"{name}.csv"]] if life.inputs == "pictures" else []),
        ["report", whole, "--out", f"{name}.html"],
        ["reconstruct", "--set", "val", *of_it, f"{name}-out", "--json"],
    )
    for each in done:
        assert each.code == 0, each.err[-3000:]
    one, two = (load_file(site.work / run / "weights.safetensors") for run in (whole, halves))
    assert one.keys() == two.keys()
    assert [key for key in one if not np.array_equal(one[key], two[key])] == []
    batch, _, width = map(int, done[2].out.split())
    assert batch == 2
    with np.load(site.work / f"{name}.npz") as found:
        assert found["features"].shape[1] == width
    assert (site.work / f"{name}.html").stat().st_size > 10_000
    if life.paints:
        assert reconstructed.code == 0, reconstructed.err
        assert all(item["error"] is None for item in json.loads(reconstructed.out)["items"])
    else:
        assert reconstructed.code == 3, reconstructed.err
        assert "does not predict pixels" in reconstructed.err
