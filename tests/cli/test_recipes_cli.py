"""``maekit recipes`` and ``maekit plugins``, and how errors become exit codes."""

from __future__ import annotations

import errno
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from maekit import errors
from maekit.cli import errors as cli_errors
from maekit.recipe.shipped import shipped
from maekit.recipe.yaml12 import parse

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Result

    Cli = Callable[..., Result]

RECIPE = """\
# A small recipe.
name: small
data:
  train: {name: sample-images}
  size: 32
model:
  backbone: {name: image-vit, size: tiny, patch: 8}
  decoder: {name: vit, width: 64, depth: 1, heads: 2}
pretrain:
  masker: {name: random, ratio: 0.75}
  target: {name: pixel}
  steps: 3
"""
MAIN = "from maekit.cli.app import main; main()"


@pytest.fixture
def small(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return str(path)


def test_list_names_what_show_and_copy_take(cli: Cli) -> None:
    listed = json.loads(cli("recipes", "list", "--json").out)
    own = [row["name"] for row in listed if row["distribution"] == "maekit"]
    assert own == list(shipped())  # in front, whatever else is installed
    assert [row["name"] for row in listed[: len(own)]] == own
    assert all(Path(row["file"]).is_file() for row in listed)
    table = cli("recipes", "list")
    assert table.code == 0
    assert all(name in table.out for name in shipped())


def test_show_prints_the_file_as_it_is(cli: Cli, small: str) -> None:
    assert cli("recipes", "show", small).out == RECIPE


def test_show_merges_overrides_and_says_what_was_not_there(cli: Cli, small: str) -> None:
    shown = cli("recipes", "show", small, "pretrain.epochs=1e-1", "~seed")
    tree = parse(shown.out, "out")
    assert tree is not None
    assert tree.at(("pretrain", "steps")) is None
    assert tree.plain["pretrain"]["epochs"] == 0.1
    assert shown.err == "note: ~seed: the recipe has no such key\n"


def test_show_resolved_is_complete_and_loads_again(cli: Cli, small: str, tmp_path: Path) -> None:
    shown = cli("recipes", "show", small, "--resolved")
    again = tmp_path / "again.yaml"
    again.write_text(shown.out, encoding="utf-8")
    assert "rounding:" in shown.out
    assert cli("recipes", "show", str(again), "--resolved").out == shown.out


def test_copy_never_overwrites_unasked(
    cli: Cli, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert cli("recipes", "copy", small).out == "small.yaml\n"
    copied = Path("small.yaml").read_text(encoding="utf-8")
    assert copied.partition("\n")[2] == RECIPE  # below the line for editors
    Path("small.yaml").write_text("mine", encoding="utf-8")
    for destination in ([], ["small.yaml"], ["."]):
        refused = cli("recipes", "copy", small, *destination)
        assert (refused.code, refused.out) == (2, "")
        assert "--overwrite" in refused.err
    assert Path("small.yaml").read_text(encoding="utf-8") == "mine"
    assert cli("recipes", "copy", small, ".", "--overwrite").code == 0
    assert Path("small.yaml").read_text(encoding="utf-8") == copied
    assert cli("recipes", "copy", small, "no/such.yaml").code == 2
    assert cli("recipes", "copy", "no-such-recipe").code == 2


def test_validate_counts_the_model_and_goes_on_after_an_error(
    cli: Cli, small: str, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(RECIPE.replace("ratio", "ration"), encoding="utf-8")
    both = cli("recipes", "validate", str(bad), small)
    assert both.code == 2
    assert f"{bad}:10: pretrain.masker.ration: unknown key" in both.err
    assert f"{small}: valid" in both.out
    assert "parameters" in both.out
    results = json.loads(cli("recipes", "validate", str(bad), small, "--json").out)
    assert [result["valid"] for result in results] == [False, True]


def test_schema_knows_the_installed_parts(cli: Cli, tmp_path: Path) -> None:
    schema = json.loads(cli("recipes", "schema").out)
    masker = definition(schema, schema["$defs"]["Pretrain"]["properties"]["masker"])
    branches = {branch["title"]: branch for branch in masker["oneOf"]}
    assert branches["random"]["properties"]["name"]["enum"] == ["random", "maekit/random"]
    assert "ratio" in branches["random"]["properties"]
    assert "ratio" not in branches["grid"]["properties"]
    train = definition(schema, schema["$defs"]["Data"]["properties"]["train"])
    images = next(branch for branch in train["oneOf"] if branch["title"] == "images")
    assert {"name", "path", "frames", "max_bad_fraction"} <= set(images["properties"])
    assert schema["then"]["required"] == ["name", "data"]
    out = tmp_path / "schema.json"
    assert cli("recipes", "schema", "--out", str(out)).out == f"{out}\n"
    assert json.loads(out.read_text(encoding="utf-8")) == schema


def test_every_key_of_the_schema_has_a_description(cli: Cli) -> None:
    silent: list[str] = []
    described = 0

    def look(node: Any, path: str) -> None:
        nonlocal described
        if isinstance(node, dict):
            for key, about in node.get("properties", {}).items():
                described += "description" in about
                if not about.get("description"):
                    silent.append(f"{path}.{key}")
            for key, inner in node.items():
                look(inner, f"{path}/{key}")
        elif isinstance(node, list):
            for inner in node:
                look(inner, path)

    look(json.loads(cli("recipes", "schema").out), "")
    assert not silent
    assert described > 400


def test_alternatives_without_a_name_may_all_fit(cli: Cli) -> None:
    """``augment: {flip: 0}`` is right in a child, whatever its parent names."""
    schema = json.loads(cli("recipes", "schema").out)["$defs"]
    for section, key, count in (("Probe", "optimizer", 2), ("Pretrain", "augment", 6)):
        own = schema[section]["properties"][key]
        assert "oneOf" not in own
        assert len(own["anyOf"]) == count
    assert schema["Sgd"]["properties"]["name"]["const"] == "sgd"
    assert "trust" not in schema["Sgd"]["properties"]


def test_schema_has_no_loose_reference(cli: Cli) -> None:
    schema = json.loads(cli("recipes", "schema").out)

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for item in value.values() for found in references(item)]
        if isinstance(value, list):
            return [found for item in value for found in references(item)]
        return []

    found = references(schema)
    assert found
    assert {reference.removeprefix("#/$defs/") for reference in found} <= set(schema["$defs"])


def definition(schema: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    reference = place.get("$ref") or place["allOf"][0]["$ref"]
    found = schema["$defs"][reference.removeprefix("#/$defs/")]
    assert isinstance(found, dict)
    return found


def test_plugins_list(cli: Cli) -> None:
    rows = json.loads(cli("plugins", "list", "--kind", "maskers", "--json").out)
    assert {row["kind"] for row in rows} == {"maskers"}
    assert {"random", "grid"} <= {row["use_as"] for row in rows}
    assert cli("plugins", "list", "--kind", "masker").code == 0
    assert "image-vit" in cli("plugins", "list").out
    wrong = cli("plugins", "list", "--kind", "masks")
    assert wrong.code == 2
    assert "did you mean 'maskers'?" in wrong.err


def test_version(cli: Cli) -> None:
    from maekit import __version__

    assert cli("--version").out == f"maekit {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.RecipeError("x"), 2),
        (errors.PartError("x"), 2),
        (errors.WeightsError("x"), 3),
        (errors.NonFiniteError("x"), 4),
        (MemoryError(), 5),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes"), 5),
        (errors.DataError("x"), 6),
        (errors.StorageError("x"), 7),
        (OSError(errno.ENOSPC, "full", "f"), 7),
        (PermissionError(errno.EACCES, "denied", "f"), 7),
        (OSError(errno.EROFS, "read-only", "f"), 7),
        (FileNotFoundError(errno.ENOENT, "missing", "f"), 2),
        (errors.RankError("x"), 8),
        (KeyboardInterrupt(), 130),
        (ValueError("x"), 1),
        (OSError(errno.EIO, "broken"), 7),
        (OSError(errno.EMFILE, "too many open files"), 7),
        (OSError(errno.ENOMEM, "no memory"), 5),
        (RuntimeError("can't start new thread"), 5),
        (OSError(errno.EINVAL, "odd"), 1),
        (OSError(errno.ENAMETOOLONG, "too long", "f"), 2),
        (OSError(errno.ELOOP, "a loop", "f"), 2),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> int:
        raise error

    assert cli_errors.run(body) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err
    assert "Traceback" not in captured.err


def test_torchs_out_of_memory_is_5() -> None:
    torch = pytest.importorskip("torch")
    assert errors.code_of(torch.OutOfMemoryError("CUDA out of memory")) == 5
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert errors.code_of(caught.value) == 5


def test_a_bug_says_where_its_traceback_is(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> int:
        raise ValueError("surprise")

    assert cli_errors.run(body) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    log = Path(line.rstrip().rstrip(")").rpartition(" ")[2])
    assert "ValueError: surprise" in log.read_text(encoding="utf-8")
    assert "Traceback" in log.read_text(encoding="utf-8")
    log.unlink()
    cli_errors.run(body, verbose=True)
    err = capsys.readouterr().err
    assert "Traceback" in err
    Path(err.splitlines()[0].rstrip(")").rpartition(" ")[2]).unlink()


def test_typers_own_exits_pass(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> int:
        raise typer.Exit(75)

    with pytest.raises(typer.Exit):
        cli_errors.run(body)
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_silent(small: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "recipes", "show", small],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        text=True,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("words", "forbidden"),
    [
        (("--help",), {"torch", "numpy", "pydantic", "yaml", "timm", "av", "PIL"}),
        (("pretrain", "--help"), {"torch", "numpy", "yaml", "timm", "av", "PIL"}),
        (("recipes", "list"), {"torch", "timm", "av", "PIL", "numpy"}),
        (("recipes", "show", "RECIPE"), {"torch", "timm", "av", "PIL", "numpy"}),
        (("plugins", "list"), {"torch", "timm", "av", "PIL", "numpy"}),
        (("weights", "list"), {"torch", "timm", "av", "PIL", "numpy"}),
    ],
)
def test_commands_import_only_what_they_need(
    words: tuple[str, ...], forbidden: set[str], small: str
) -> None:
    code = (
        "import sys\nfrom maekit.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    words = tuple(small if word == "RECIPE" else word for word in words)
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert not forbidden & set(done.stderr.split())


TEN_LINES = """\
import typer
app = typer.Typer()
@app.command()
def hello(name: str) -> None:
    print(f"hello {name}")
@app.command()
def bye(name: str) -> None:
    print(f"bye {name}")
if __name__ == "__main__":
    app()
"""


@pytest.mark.slow  # starts 30 processes
def test_help_costs_little_more_than_typer_itself(tmp_path: Path) -> None:
    ten_lines = tmp_path / "ten_lines.py"
    ten_lines.write_text(TEN_LINES, encoding="utf-8")
    # Each pair meets the same machine; of five pairs the median ratio varied by 15 %.
    ratios = []
    for _ in range(15):
        theirs = seconds(str(ten_lines), "--help")
        ratios.append(seconds("-c", MAIN, "--help") / theirs)
    assert statistics.median(ratios) <= 1.3


def seconds(*words: str) -> float:
    """Processor time, which a busy machine does not stretch as it does the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@pytest.mark.parametrize("part", range(4))
def test_every_shipped_recipe_is_valid(cli: Cli, part: int) -> None:
    recipes = sorted(shipped())[part::4]
    result = cli("recipes", "validate", *recipes)
    assert result.code == 0, result.err
    assert result.out.count(": valid") == len(recipes)


def test_validate_takes_overrides(cli: Cli, small: str) -> None:
    """What is checked is what is about to be run."""
    assert cli("recipes", "validate", small, "data.size=32", "~data.val").code == 0
    wrong = cli("recipes", "validate", small, "data.size=30")
    assert wrong.code == 2
    assert "does not divide" in wrong.err
    none = cli("recipes", "validate", "data.size=30")
    assert (none.code, "no recipe is named" in none.err) == (2, True)


def test_a_folder_that_is_not_there_is_called_so(cli: Cli) -> None:
    missing = cli("recipes", "new", "nodir", "--out", "z.yaml")
    assert missing.code == 6
    assert "nodir: no such file or folder" in missing.err
    assert "FOLDER" not in missing.err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.stats={mean: [0.5], std: [0.1]}", "stats has 1 channels, but channels is 3"),
        ("data.train={name: images, path: x, sampling: segments, stride: 2}", "stride"),
    ],
)
def test_keys_that_do_not_go_together_get_no_description_for_advice(
    cli: Cli, small: str, word: str, said: str
) -> None:
    failed = cli("recipes", "validate", small, word)
    assert failed.code == 2
    assert said in failed.err
    assert "try: set the keys that it names, below data" in failed.err
