"""The video path: 16 frames at stride 4 of a file, as uint8 ``[16, H, W, 3]``, opening included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.images import photo
from benchmarks.sides import Group
from maekit.data.video import open_video

HEIGHT, WIDTH, FRAMES, RATE = 256, 340, 300, 30
CLIP, STRIDE = 16, 4
Read = Callable[[Path, list[int]], np.ndarray]


def draw(folder: Path, count: int, keyframes: int) -> list[Path]:
    """Write H.264 videos of 10 s: pictures that the camera moves over, with some noise."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"every-{keyframes}-{number}.mp4" for number in range(count)]
    for number, file in enumerate(files):
        if not file.exists():
            _encode(file, number, keyframes)
    return files


def _encode(file: Path, seed: int, keyframes: int) -> None:
    rng, scene = np.random.default_rng(seed), photo(2 * HEIGHT, 2 * WIDTH, seed)
    options = {"g": str(keyframes), "keyint_min": str(keyframes), "sc_threshold": "0"}
    with av.open(str(file), "w") as container:
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(FRAMES):
            top = int(HEIGHT / 2 * (1 + np.sin(number / 60 + seed)))
            left = int(WIDTH / 2 * (1 + np.cos(number / 80 + seed)))
            shot = scene[top : top + HEIGHT, left : left + WIDTH].astype(np.int16)
            shot = shot + rng.normal(0, 2, (HEIGHT, WIDTH, 1)).astype(np.int16)
            frame = av.VideoFrame.from_ndarray(shot.clip(0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _decode_all(file: Path, ids: list[int]) -> np.ndarray:
    """Decode the whole file, and convert what is wanted."""
    wanted, found = set(ids), []
    with av.open(str(file)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found.append(frame.to_ndarray(format="rgb24"))
    return np.stack(found)


def _plain_seek(file: Path, ids: list[int], times: np.ndarray, *, convert: bool = True) -> Any:
    """Decode from the keyframe before the first to the last; only count them or convert them."""
    wanted, found = set(times[ids].tolist()), []
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(int(times[ids[0]]), stream=stream)
        for frame in container.decode(stream):
            if frame.pts in wanted and convert:
                found.append(frame.to_ndarray(format="rgb24"))
            if frame.pts is not None and frame.pts >= times[ids[-1]]:
                break
    return np.stack(found) if convert else None


def _others(file: Path) -> tuple[dict[str, Read], dict[str, str]]:
    """Return the decoders of others that can read a file here, and why the rest is left out."""
    found: dict[str, Read] = {}
    skipped = {}
    for name, read in {
        "decord": _decord,
        "torchcodec, exact": partial(_torchcodec, mode="exact"),
        "torchcodec, approximate": partial(_torchcodec, mode="approximate"),
    }.items():
        try:
            read(file, [0, 1])
        except Exception as error:  # noqa: BLE001 - not installed, or without its libraries
            skipped[name] = str(error).strip().partition("\n")[0]
        else:
            found[name] = read
    return found, skipped


def _decord(file: Path, ids: list[int]) -> np.ndarray:
    import decord

    frames: np.ndarray = decord.VideoReader(str(file), num_threads=1).get_batch(ids).asnumpy()
    return frames


def _torchcodec(file: Path, ids: list[int], *, mode: str) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(str(file), seek_mode=mode, num_ffmpeg_threads=1, dimension_order="NHWC")
    frames: np.ndarray = decoder.get_frames_at(ids).data.numpy()
    return frames


def groups(folder: Path, *, samples: int = 4) -> Iterator[Group]:
    """Yield a group for each distance of key frames."""
    import torch

    torch.set_num_threads(1)
    others, skipped = _others(draw(folder / "videos", 1, 12)[0])
    for keyframes in (250, 12):
        files = draw(folder / "videos", samples, keyframes)
        times = [open_video(str(file)).index.times for file in files]
        rng = np.random.default_rng(0)
        starts = rng.integers(0, FRAMES - CLIP * STRIDE, (64, samples))

        def each(read: Callable[[int, list[int]], object], starts: Any = starts) -> Any:
            def turn_through(turn: int) -> None:
                for number, start in enumerate(starts[turn % len(starts)].tolist()):
                    read(number, list(range(start, start + CLIP * STRIDE, STRIDE)))

            return turn_through

        def ours(number: int, ids: list[int], files: Any = files) -> np.ndarray:
            return open_video(str(files[number])).decode(ids)

        work = {
            "maekit": each(ours),
            "PyAV, the whole file": each(lambda n, ids, f=files: _decode_all(f[n], ids)),
            "PyAV, from the keyframe": each(
                lambda n, ids, f=files, t=times: _plain_seek(f[n], ids, t[n])
            ),
            "decoding those packets alone": each(
                lambda n, ids, f=files, t=times: _plain_seek(f[n], ids, t[n], convert=False)
            ),
        }
        work |= {
            name: each(lambda n, ids, f=files, read=read: read(f[n], ids))
            for name, read in others.items()
        }
        ids = list(range(40, 40 + CLIP * STRIDE, STRIDE))
        same = np.array_equal(ours(0, ids), _decode_all(files[0], ids))
        yield Group(
            f"H.264 {WIDTH} x {HEIGHT}, 10 s, key frames every {keyframes}",
            f"ms a clip of {CLIP} x stride {STRIDE}, one thread",
            work,
            scale=1e3 / samples,
            skipped=skipped,
            facts={"frames equal a plain decode": same},
        )
