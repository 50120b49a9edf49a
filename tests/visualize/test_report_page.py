"""The page: complete, escaped, the same bytes for the same run."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from report_runs import make_run, step_record, write_metrics, write_picture, write_result

from maekit.visualize.report.numbers import MISSING, elapsed, number
from maekit.visualize.report.page import (
    MOST_PICTURES,
    as_yaml,
    breakable,
    differing,
    flat,
    read_pictures,
    render,
    side_by_side,
)

_VOID = {"meta", "link", "input", "img", "br"}


class Outline(html.parser.HTMLParser):
    """Elements of a page, and whether each that was opened was closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(*folders: Path) -> str:
    return render(folders)[0].decode().replace("<wbr>", "")


def test_the_page_is_well_formed_and_its_ids_are_unique(tmp_path: Path) -> None:
    outline = Outline(page_of(make_run(tmp_path / "one"), make_run(tmp_path / "two")))
    assert outline.open == []
    ids = [attributes["id"] for _, attributes in outline.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for name, attributes in outline.seen if name == "a"]
    assert {str(link).removeprefix("#") for link in links} <= set(ids)


def test_text_from_a_run_is_never_markup(tmp_path: Path) -> None:
    evil = "</script><img src=x onerror=alert(1)>"
    folder = make_run(tmp_path / "run")
    (folder / "recipe.yaml").write_text(f"name: '{evil}'\npretrain: {{masker: {{name: '{evil}'}}}}")
    (folder / "log.txt").write_text(evil)
    (folder / "env.json").write_text(json.dumps({evil: evil}))
    (folder / "bad_files.jsonl").write_text(json.dumps({"file": evil, "reason": evil}) + "\n")
    record = {"step": 3, evil: {evil: 0.5}}
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    write_result(folder, exit=4, steps=40, error=evil)
    page = page_of(folder)
    assert evil not in page
    assert page.lower().count("</script>") == 2
    assert all("onerror" not in attributes for _, attributes in Outline(page).seen)


def test_file_names_that_are_no_text_are_shown_escaped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "bad_files.jsonl").write_text('{"file": "a\\udcff.png", "reason": "r"}\n')
    assert "a\\udcff.png" in page_of(folder)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "here" / "run")
    first = page_of(folder)
    assert page_of(folder) == first
    elsewhere = tmp_path / "there" / "here" / "run"
    shutil.copytree(folder, elsewhere)
    assert page_of(elsewhere) == first


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "run"))
    assert "default-src 'none'; img-src data:" in page
    outline = Outline(page)
    addresses = [value for _, attributes in outline.seen for key, value in attributes.items()
                 if key in ("src", "href", "srcset", "data", "action")]  # fmt: skip
    assert addresses
    assert all(str(each).startswith(("data:", "#")) for each in addresses)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|https?://(?!www\.w3\.org)", page)


def test_two_runs_show_what_differs_and_nothing_else(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "one"), make_run(tmp_path / "two", ratio=0.9)
    section = page_of(one, two).partition('<section id="recipe">')[2].partition("<details>")[0]
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', section)
    assert rows == [("name", "one", "two"), ("pretrain.masker.ratio", "0.75", "0.9")]
    section = page_of(one, one).partition('<section id="recipe">')[2]
    assert "The recipes are the same." in section


def test_facts_are_those_of_the_verb(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(f"{text}tokenizer:\n  dvae: {{vocabulary: 512}}\n")
    facts = page_of(folder).partition("The recipe in short")[2].partition("<details>")[0]
    assert "pretrain.masker" in facts
    assert "tokenizer.dvae" not in facts
    write_result(folder, exit=0, steps=40, verb="tokenizer")
    facts = page_of(folder).partition("The recipe in short")[2].partition("<details>")[0]
    assert "tokenizer.dvae" in facts
    assert "vocabulary: 512" in facts
    assert "pretrain." not in facts
    assert "model." not in facts


def test_missing_pictures_and_a_cut_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    cut = folder / "pictures" / "step-00000020.png"
    cut.write_bytes(cut.read_bytes()[:60])
    page = page_of(folder)
    assert "Could not be read: step-00000020.png." in page
    assert page.count("<img") == 4
    shutil.rmtree(folder / "pictures")
    assert "Reconstructions<" not in page_of(folder)


def test_many_pictures_are_an_even_choice_and_large_ones_are_made_smaller(tmp_path: Path) -> None:
    tmp_path.joinpath("pictures").mkdir()
    for step in range(0, 700, 10):
        write_picture(tmp_path, step)
    pictures = read_pictures(tmp_path / "pictures")
    steps = [picture.step for picture in pictures.shown]
    assert len(steps) == MOST_PICTURES
    assert (steps[0], steps[-1], pictures.found, pictures.recoded) == (0, 690, 70, False)
    assert max(b - a for a, b in pairwise(steps)) <= 40


def test_recipes_are_compared_key_by_key() -> None:
    one = flat({"a": {"x": 1, "y": [1, None, True]}, "b": "t"})
    two = flat({"a": {"x": 1.0, "z": 2}, "b": "t", "c": {}})
    assert one == {"a.x": "1", "a.y": "[1, null, true]", "b": "t"}
    rows = side_by_side([one, two])
    assert rows == [
        ["a.x", "1", "1"],
        ["a.y", "[1, null, true]", MISSING],
        ["a.z", MISSING, "2"],
        ["b", "t", "t"],
    ]
    assert differing(rows) == [1, 2]
    floats = (0.1, 0.100000000001, 1e-8, 1e38, 2.0)
    assert list(map(as_yaml, floats)) == ["0.1", "0.100000000001", "1e-8", "1e38", "2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0184321, "0.01843"), (3.0, "3"), (12345, "12,345"), (1234.56, "1,235"), (85.1098, "85.11"),
     (2.5e-7, "2.50e-7"), (4.2e9, "4.20e9"), (-0.5, "-0.5000"), (None, MISSING),
     (float("nan"), MISSING)],
)  # fmt: skip
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_durations_and_breaks() -> None:
    assert [elapsed(seconds) for seconds in (None, 5.4, 86.4, 7260)] == [
        MISSING, "5 s", "1 min 26 s", "2 h 01 min",
    ]  # fmt: skip
    assert breakable("a.b/c_<d e. f 0.5") == "a.<wbr>b/<wbr>c_&lt;d e. f 0.5"


def test_skipped_updates_and_doubts_are_on_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    lines = [step_record(step, 40) for step in range(1, 41)]
    lines[3] |= {"loss": None, "skipped": "nonfinite"}
    lines[4] |= {"loss": None, "skipped": "scaler"}
    write_metrics(run, lines)
    doubts = {"nonfinite_samples": ["odd.tif"], "doubts": ["the loss ended above its start", 3]}
    write_result(run, exit=0, steps=40, **doubts)
    text = page_of(run)
    assert "updates skipped as not finite: 1; samples: odd.tif" in text
    assert "Warning: the loss ended above its start" in text


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", page)


def test_pictures_come_first_and_what_is_empty_is_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    whole = headings(page_of(folder))
    assert whole.index("Reconstructions") == 1
    assert whole.index("Reconstructions") < whole.index("Curves")
    shutil.rmtree(folder / "pictures")
    (folder / "bad_files.jsonl").unlink(missing_ok=True)
    assert headings(page_of(folder)) == ["Summary", "Curves", "Recipe", "Environment", "Log"]


def test_columns_that_no_run_fills_are_left_out(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    heading = re.compile(r'<th scope="col">([^<]*)</th>')
    assert "Gain over the best fill" in heading.findall(page_of(*runs))
    for run in runs:
        write_metrics(run, [step_record(step, 40) for step in range(1, 41)])
    columns = heading.findall(page_of(*runs))
    assert "Gain over the best fill" not in columns
    assert "Held out" not in columns
    assert {"Verdict", "Loss", "Time"} <= set(columns)
