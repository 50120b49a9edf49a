"""``maekit ablate`` and ``maekit report`` of a sweep, as they are typed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_maekit import main as run_fake
from fake_sweeps import ROWS, swept
from small_recipes import IMAGES, write_recipe

from maekit.cli.app import main

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int) or code is None
        return code or 0, captured.out, captured.err

    return call


def test_list_shows_rows_papers_numbers_and_commands(
    fake: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    code, out, _ = typed("ablate", "ablations/mae_mask_sampling", "--list")
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("block 75"))
    assert line.split()[-2:] == ["82.8", "63.9"]
    assert "pretrain.masker={name: block, ratio: 0.75}" in line
    assert "random 75 (base)" in out
    assert "12 (4 pretrain, 4 finetune, 4 probe); 0 shared" in out
    assert out.count("maekit pretrain runs/mae_mask_sampling/N/recipe.yaml") == 4
    assert not list(fake.iterdir()), "nothing is written"


def test_commands_for_a_cluster_leave_what_resume_collects(
    fake: Path, typed: Callable[..., tuple[int, str, str]]
) -> None:
    recipe = write_recipe(fake / "own.yaml", IMAGES, ROWS)
    words = ("ablate", recipe, "--only", "random 50", "--only", "half tuned", "--out", "S")
    code, out, _ = typed(*words, "--print-commands", "--json")
    stages = json.loads(out)["commands"]
    assert (code, [len(stage) for stage in stages]) == (0, [2, 2, 4])
    assert all(line.count(" && ") == 0 for stage in stages for line in stage)
    for stage in stages:
        for line in stage:
            assert run_fake(shlex.split(line)[1:]) == 0
    code, out, err = typed(*words, "--resume", "--jobs", "0", "--json")
    assert code == 0, err
    result: dict[str, Any] = json.loads(out)
    assert (result["done"], result["jobs"]) == (8, 8)
    assert [row["finished"] for row in result["rows"]] == [6, 6]
    # Nothing is run where it is only collected.
    code, out, err = typed("ablate", recipe, "--resume", "--jobs", "0", "--out", "S", "--json")
    assert (code, json.loads(out)["done"]) == (75, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "random 57"], "--only random 57: no such row"),
        (["--seeds", "0,a"], "--seeds 0,a: not a list of seeds"),
        (["ablate.base=quickstart"], "can only be named in the file"),
        (["ablate.rows.scratch.set={pretrain.mask.ratio: 1}"], "ablate row 'scratch'"),
        (["ablate.compare_to=none"], "ablate.compare_to: there is no such row"),
        (["~ablate"], "ablate: the recipe has no such section"),
    ],
)
def test_what_is_refused(
    fake: Path, typed: Callable[..., tuple[int, str, str]], words: list[str], message: str
) -> None:
    recipe = write_recipe(fake / "own.yaml", IMAGES, ROWS)
    code, _, err = typed("ablate", recipe, *words, "--out", "S")
    assert code == 2
    assert message in err
    assert not (fake / "S").exists()


@pytest.mark.slow  # a command that is not the fake
def test_missing_weights_are_one_rows_failure(
    tmp_path: Path, typed: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = {"rows": {"theirs": {"from": "w.pth"}}, "measure": ["knn"], "seeds": [0]}
    recipe = write_recipe(tmp_path / "own.yaml", IMAGES, ROWS, {"ablate": theirs})
    code, out, _ = typed("ablate", recipe, "--only", "theirs", "--device", "cpu")
    assert code == 2
    assert "theirs (exit 2)" in out
    assert "no such run or weights file: w.pth" in out
    assert "`maekit weights get` fetches" in out


def test_the_page_of_a_sweep(fake: Path, typed: Callable[..., tuple[int, str, str]]) -> None:
    rows = {"only": ["random 50", "random 75"], "seeds": [4, 5, 6]}
    swept(fake / "S", {"ablate": {"title": "Masks <b>"}}, **rows)
    code, out, err = typed("report", "S")
    assert code == 0, err
    assert "random 75" in out
    assert "scratch" not in out, "the page has the rows that were run"
    code, out, _ = typed("report", "S", "--json")
    assert json.loads(out)["sweep"]["seeds"] == [4, 5, 6]
    page = (fake / "S" / "report.html").read_text()
    assert "<h1>Masks &lt;b&gt;</h1>" in page.replace("\n", "")
    assert page.count('<th scope="col"><button type="button">') == 7
    assert "twice their standard error" in page
    code, _, err = typed("report", "S", "S/runs/random-50/4/pretrain")
    assert (code, "a page of its own" in err) == (2, True)
