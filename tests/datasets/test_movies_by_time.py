"""Frames by the clock: of each layout, those that the public codes of AVA show."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered_films import at_rate, film, filtered, number_of, painted, rounded
from PIL import Image

from maekit.data.clips import centered_frames
from maekit.datasets.movies import Movies, Names, clock
from maekit.errors import DataError
from maekit.recipe.schema import DataSpec

AD = (np.arange(16) * 4 - 31) / 25  # VideoMAE-Action-Detection: 25 frames a second
SF = (np.arange(16) * 4 - 32) / 30  # SlowFast, MMAction: 30
SECONDS = 6
_rng = np.random.default_rng(0)
FILMS = {
    "24": at_rate(24, SECONDS),
    "25": at_rate(25, SECONDS),
    "29.97": at_rate(Fraction(30_000, 1001), SECONDS),
    "30": at_rate(30, SECONDS),
    "50": at_rate(50, SECONDS),
    "variable": np.cumsum(np.r_[0, _rng.choice([1 / 30, 1 / 25, 1 / 15, 0.2], 100)]),
    "late": at_rate(25, SECONDS, start=5.0),
    "late at 29.97": at_rate(Fraction(30_000, 1001), SECONDS, start=0.7),
}


def shown(movies: Movies, movie: str, second: float, offsets: np.ndarray, rate: int) -> list[int]:
    opened = movies.open(movie, second)
    ids = opened.at((second + offsets).tolist(), 0.5 / rate)
    assert all(0 <= number < opened.info.frames for number in ids)
    return [number_of(frame) for frame in opened.decode(ids)]


@pytest.mark.parametrize("name", FILMS)
def test_frames_are_those_of_ffmpegs_cuts(tmp_path: Path, name: str) -> None:
    film(tmp_path / "-id_of_movie.mp4", FILMS[name])
    movies = Movies(str(tmp_path), "movies")
    for offsets, rate in ((AD, 25), (SF, 30)):
        cut = rounded(FILMS[name], rate)
        for second in (2, 3):
            places = second * rate + np.rint(offsets * rate).astype(int)
            assert shown(movies, "-id_of_movie", second, offsets, rate) == [cut[n] for n in places]


def test_ffmpegs_filter_rounds_as_it_is_documented_to(tmp_path: Path) -> None:
    film(tmp_path / "m.mp4", FILMS["variable"][:60])
    cut = rounded(FILMS["variable"][:60], 25)
    assert filtered(tmp_path / "m.mp4", 25)[: len(cut)] == cut


def test_worked_frames_of_four_rates(tmp_path: Path) -> None:
    first, last = {}, {}
    for name in ("24", "25", "29.97", "30"):
        film(tmp_path / f"{name}.mp4", FILMS[name])
        found = shown(Movies(str(tmp_path), "movies"), name, 3, AD, 25)
        first[name], last[name] = found[0], found[-1]
    # -31/25 s is 1.76 s, 29/25 s is 4.16 s; of 25 frames a second exactly 44 and 104.
    assert first == {"24": 42, "25": 44, "29.97": 53, "30": 53}
    assert last == {"24": 100, "25": 104, "29.97": 125, "30": 125}


def test_what_lies_beyond_the_file_is_its_first_and_last_frame(tmp_path: Path) -> None:
    film(tmp_path / "short.mkv", at_rate(25, 3))
    movies = Movies(str(tmp_path), "movies")
    assert shown(movies, "short", 0, AD, 25)[:9] == [0] * 8 + [1]
    assert shown(movies, "short.mkv", 2.96, AD, 25)[-8:] == [74] * 8


def test_cuts_begin_at_second_900_or_where_they_are_said_to(tmp_path: Path) -> None:
    film(tmp_path / "cut.mp4", at_rate(25, 8))
    expected = [3 * 25 - 31 + 4 * place for place in range(16)]
    assert shown(Movies(str(tmp_path), "cuts"), "cut", 903, AD, 25) == expected
    assert shown(Movies(str(tmp_path), "cuts", start=890), "cut", 893, AD, 25) == expected


@pytest.mark.parametrize("below", ["", "trainval/"])
@pytest.mark.parametrize("name", ["{:d}", "{:04d}"])
def test_files_of_one_second_are_one_movie(tmp_path: Path, below: str, name: str) -> None:
    folder = tmp_path / below / "1j20qq1JyX4"
    folder.mkdir(parents=True)
    for second in range(900, 908):
        file = folder / f"{name.format(second)}.mp4"
        film(file, at_rate(25, 1), first=(second - 900) * 25)
    movies = Movies(str(tmp_path), "seconds")
    assert shown(movies, "1j20qq1JyX4", 903, AD, 25) == list(range(75 - 31, 75 + 30, 4))
    assert shown(movies, "1j20qq1JyX4", 900, AD, 25)[:8] == [0] * 8
    assert shown(movies, "1j20qq1JyX4", 907, AD, 25)[-1] == 199
    # A second that is cut short changes nothing in the others.
    film(folder / f"{name.format(903)}.mp4", at_rate(25, 0.2), first=75)
    short = shown(movies, "1j20qq1JyX4", 903, AD, 25)
    assert short == [44, 48, 52, 56, 60, 64, 68, 72, 76, *[79] * 5, 100, 104]
    (folder / f"{name.format(904)}.mp4").unlink()
    with pytest.raises(DataError, match="second 904 is missing"):
        shown(movies, "1j20qq1JyX4", 903, AD, 25)
    with pytest.raises(DataError, match=r"second 904 is not in .* 900 to 907"):
        movies.open("1j20qq1JyX4", 904)


@pytest.mark.parametrize("pattern", ["{movie}_{number:06d}.jpg", "img_{number:05d}.jpg"])
def test_folders_of_frames_are_those_of_slowfast_and_mmaction(tmp_path: Path, pattern: str) -> None:
    folder = tmp_path / "-5KQ66BBWC4"
    folder.mkdir()
    for number in range(1, 151):
        file = folder / pattern.format(movie=folder.name, number=number)
        Image.fromarray(painted(number)).save(file, quality=95)
    movies = Movies(str(tmp_path), "frames")
    # Center (s - 900) * 30 of the list from 0: the picture numbered 30 * (s - 900) + 1.
    center = 30 * 2 + 1
    assert shown(movies, folder.name, 902, SF, 30) == [center - 32 + 4 * n for n in range(16)]
    slow = Movies(str(tmp_path), "frames", start=0, rate=10)
    assert shown(slow, folder.name, 5, np.array([-0.1, 0, 0.1]), 10) == [50, 51, 52]
    (folder / pattern.format(movie=folder.name, number=70)).unlink()
    with pytest.raises(DataError, match="without a gap"):
        Movies(str(tmp_path), "frames").open(folder.name, 902)


@pytest.mark.parametrize(
    "names",
    [
        [f"x_{number:06d}.jpg" for number in range(1, 1200)],
        [f"50%_{number}.p1.png" for number in range(8, 12)],
        ["a1.png", "b2.png", "c3.png"],
        ["1.png", "2.jpg"],
    ],
)
def test_names_that_differ_in_a_number_are_not_kept(names: list[str]) -> None:
    made = Names.of(names)
    assert list(made) == names
    assert made[-1] == names[-1]
    assert list(made[1:3]) == names[1:3]
    assert isinstance(made, Names) == (len(names) > 1000)
    with pytest.raises(IndexError):
        made[len(names)]


def test_a_second_that_is_not_there_is_an_error_that_says_what_is(tmp_path: Path) -> None:
    film(tmp_path / "m.mp4", at_rate(25, 3))
    with pytest.raises(DataError, match=r"m.mp4, which goes from 0 to 3 s"):
        Movies(str(tmp_path), "movies").open("m", 3)
    with pytest.raises(DataError, match=r"second 899 is not in .* from 900 to 903"):
        Movies(str(tmp_path), "cuts").open("m", 899)
    with pytest.raises(DataError, match="there is no movie n in"):
        Movies(str(tmp_path), "movies").open("n", 1)
    with pytest.raises(DataError, match="is no folder"):
        Movies(str(tmp_path / "m.mp4"), "movies")


def test_two_movies_of_one_name_are_not_taken_for_each_other(tmp_path: Path) -> None:
    for path in ("x/a.mp4", "y/a.mp4", "b.mp4", "b.mkv"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        film(tmp_path / path, at_rate(25, 1))
    movies = Movies(str(tmp_path), "movies")
    for name, said in (("a", "x/a.mp4, .*y/a.mp4"), ("a.mp4", "several"), ("b", "b.mkv")):
        with pytest.raises(DataError, match=said):
            movies.open(name, 0)
    assert movies.find("y/a.mp4") == f"{tmp_path}/y/a.mp4"
    assert movies.find("b.mp4") == f"{tmp_path}/b.mp4"
    for path in ("train/m", "val/m"):
        (tmp_path / "frames" / path).mkdir(parents=True)
        (tmp_path / "frames" / path / "1.jpg").touch()
    with pytest.raises(DataError, match="several movies m"):
        Movies(str(tmp_path / "frames"), "frames").open("m", 900)


@given(
    st.integers(1, 400),
    st.integers(890, 910),
    st.integers(0, 20),
    st.sampled_from([(16, 4, -31), (16, 4, None), (8, 8, None), (32, 2, -32)]),
)
def test_a_clip_of_25_a_second_is_each_fourth_frame_around_its_second(
    count: int, start: int, second: int, clip: tuple[int, int, int | None]
) -> None:
    """VideoMAE's: frames 25 (second - start) - 31 + 4 i, and beyond the file its ends."""
    frames, stride, first = clip
    spec = DataSpec(
        name="ava", frames=frames, stride=stride, first=first, sampling="centered", rate=25
    )
    at = clock(np.arange(count) / 25, start)

    def around(seconds: Sequence[float], late: float) -> Sequence[int]:
        return at([start + second + each for each in seconds], late)

    found = centered_frames(count, spec, None, 25.0, at=around)
    offset = -(frames * stride // 2) + (stride - 1) // 2 if first is None else first
    wanted = 25 * second + offset + stride * np.arange(frames)
    assert list(found) == np.clip(wanted, 0, count - 1).tolist()


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=60),
    st.lists(st.integers(-200, 3000), min_size=1, max_size=20),
    st.integers(0, 20),
)
def test_of_any_times_the_last_frame_that_is_not_too_late_is_shown(
    steps: list[int], wanted: list[int], late: int
) -> None:
    """Of variable rates, too: times are in hundredths here, so that none is equal but for one."""
    times = np.cumsum([0, *steps])
    at = clock(times / 100, 7.0)
    # Half a hundredth more: what is exactly on time is FFmpeg's affair, and tested above.
    found = at([7 + (each + 0.5) / 100 for each in wanted], late / 100)
    for each, place in zip(wanted, found, strict=True):
        shown = [n for n, time in enumerate(times.tolist()) if time <= each + late]
        assert place == (shown[-1] if shown else 0)
