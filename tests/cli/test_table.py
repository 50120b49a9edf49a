"""Tables: whatever the width, nothing is cut and what is copied stays on its line."""

from __future__ import annotations

import random

import pytest

from maekit.cli.output import fitted, print_table
from maekit.cli.table import table_lines

ROWS = [
    ["videomae_k400_vit_b_1600_pretrain", "VideoMAE ViT-B on Kinetics-400", "https:" + "a" * 67],
    ["mae", "MAE", "-"],
]


def words(lines: list[str]) -> set[str]:
    return {word for line in lines for word in line.split()}


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, None])
def test_every_word_is_whole_at_every_width(width: int | None) -> None:
    lines = table_lines(["name", "what", "address"], ROWS, width)
    assert words([cell for row in ROWS for cell in row]) <= words(lines)


def test_without_a_terminal_a_row_is_a_line_however_long() -> None:
    rows = [["a" * 300, "b c " * 100, "d"], ["e", "f", "g"]]
    lines = table_lines(["x", "y", "z"], rows, None)
    assert len(lines) == 3
    assert lines[1].startswith("a" * 300 + "  b c b c")


def test_cells_are_broken_between_words_and_columns_stay_aligned() -> None:
    rows = [["quickstart", "pre-training on pictures that are drawn here in minutes", "yes"]]
    lines = table_lines(["recipe", "about", "ok"], rows, 50)
    assert max(map(len, lines)) <= 50
    assert len(lines) == 3
    assert lines[0].index("about") == lines[1].index("pre-training") == lines[2].index("drawn")
    assert lines[0].index("ok") == lines[1].index("yes")


def test_where_words_do_not_fit_each_row_is_a_block() -> None:
    lines = table_lines(["name", "what", "address"], ROWS, 80)
    assert lines[0] == ROWS[0][0]
    assert lines[1] == f"  what     {ROWS[0][1]}"
    assert lines[2] == f"  address  {ROWS[0][2]}"
    assert lines[3] == "mae"
    narrow = table_lines(["name", "what", "address"], ROWS, 30)
    assert narrow[1:3] == ["  what     VideoMAE ViT-B on", "           Kinetics-400"]


def test_any_table_fits_where_its_words_do() -> None:
    rng = random.Random(0)
    for _ in range(200):
        count = rng.randint(1, 5)

        def cell() -> str:
            return " ".join("w" * rng.randint(1, 9) for _ in range(rng.randint(1, 12)))

        rows = [[cell() for _ in range(count)] for _ in range(3)]
        width = rng.randint(30, 130)
        lines = table_lines(["h"] * count, rows, width)
        assert words([cell for row in rows for cell in row]) <= words(lines)
        if lines[0].startswith("h") and rows[0][0] != lines[0]:  # a table
            assert max(map(len, lines)) <= width


def test_wide_letters_count_as_two(capsys: pytest.CaptureFixture[str]) -> None:
    lines = table_lines(["名前", "x"], [["写真", "1"], ["abcd", "2"]], None)
    assert lines == ["名前  x", "写真  1", "abcd  2"]
    print_table(("a", "b"), [["one\ntwo\x1b", "3"]])
    assert capsys.readouterr().out == "a             b\none\\ntwo\\x1b  3\n"


def test_errors_are_broken_between_words_and_commands_are_not() -> None:
    text = (
        "error: INPUT: nothing to reconstruct: many: no pictures or videos in this folder\n"
        "  try: pictures, videos, folders of them, or quoted patterns ('photos/**/*.jpg')\n"
        "next:     maekit pretrain quickstart data.train.path=a/folder/of/mine ~data.val"
    )
    shown = fitted(text, 60)
    assert text.split("\n")[2] in shown.split("\n")
    assert shown.split() == text.split()
    assert all(len(line) <= 60 for line in shown.split("\n")[:-1])
    assert "\n    " in shown  # what follows a hint is further in than it
    assert fitted(text, 200) == text
