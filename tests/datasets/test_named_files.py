"""Which files a command line means, and what their results are called."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from maekit.datasets.named_files import find_files, open_named_file, output_stems
from maekit.errors import DataError, RecipeError


def test_files_folders_patterns_and_what_is_not_there(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "sub/c.mp4", "sub/notes.txt", ".hidden.png", "d.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(*words: str, moving: bool = False) -> list[tuple[str, str]]:
        found = find_files([f"{tmp_path}/{word}" for word in words], moving=moving)
        return [(Path(each.path).name, each.kind) for each in found]

    assert names("") == [
        ("a.jpg", "image"), ("b.png", "image"), ("d.gif", "image"), ("c.mp4", "video"),
    ]  # fmt: skip
    assert names("d.gif", moving=True) == [("d.gif", "video")]
    assert names("**/*.mp4", "b.png") == [("c.mp4", "video"), ("b.png", "image")]
    assert names("sub/notes.txt") == [("notes.txt", "unknown")]
    missing = find_files([f"{tmp_path}/b.png", f"{tmp_path}/none.png", f"{tmp_path}/*.tif"])
    assert [each.missing is None for each in missing] == [True, False, False]
    with pytest.raises(DataError, match="no such file"):
        open_named_file(missing[1], "drop")
    with pytest.raises(RecipeError, match="no file matches"):
        find_files([f"{tmp_path}/*.tif"])


def test_a_file_without_suffix_is_what_it_holds(tmp_path: Path) -> None:
    Image.new("RGB", (5, 7)).save(tmp_path / "x", "PNG")
    [found] = find_files([str(tmp_path / "x")])
    assert open_named_file(found, "drop").info.height == 7
    (tmp_path / "y").write_text("neither")
    [found] = find_files([str(tmp_path / "y")])
    with pytest.raises(DataError, match=r"neither a picture .* nor a video"):
        open_named_file(found, "drop")


@given(st.lists(st.sampled_from(["a.png", "d/a.png", "A.jpg", "a-2.png", "é.png", "-x.png"])))
def test_no_two_results_have_one_name(paths: list[str]) -> None:
    stems = output_stems(paths)
    assert len({stem.casefold() for stem in stems}) == len(paths)
    for path, stem in zip(paths, stems, strict=True):
        assert stem.startswith(Path(path).stem)


def test_long_names_leave_room_for_an_ending() -> None:
    [stem] = output_stems(["é" * 126 + ".png"])
    assert len(f"{stem}-1000.png".encode()) < 255
