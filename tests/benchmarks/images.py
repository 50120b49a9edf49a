"""The image path: a JPEG of 500 x 375 to a random crop of 224 x 224, uint8."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.sides import Group
from maekit.contracts import View
from maekit.data.order import Key
from maekit.data.reader import SampleReader
from maekit.datasets.images import Images
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import RandomResizedCrop

SIZE, HEIGHT, WIDTH = 224, 375, 500
SCALE = (0.2, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(height: int, width: int, seed: int) -> np.ndarray:
    """Draw noise with the spectrum of photographs, uint8 ``[H, W, 3]``."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(down, across), 1 / max(height, width)) ** 1.5
    shared = rng.normal(size=(height, width))
    planes = []
    for _ in range(3):
        noise = 0.85 * shared + 0.3 * rng.normal(size=(height, width))
        plane = np.fft.irfft2(np.fft.rfft2(noise) * fall, s=(height, width))
        planes.append(127 + 48 * (plane - plane.mean()) / plane.std())
    return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)


def draw(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of about 45 KB."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:03}.jpg" for number in range(count)]
    for number, file in enumerate(files):
        if not file.exists():
            Image.fromarray(photo(HEIGHT, WIDTH, number)).save(file, quality=90)
    return files


def groups(folder: Path, *, samples: int = 32) -> Iterator[Group]:
    """Yield the one group there is."""
    files = draw(folder / "images", samples)
    reader = SampleReader(
        Images(Images.Options(path=folder / "images")),
        spec=DataSpec(name="images"),
        augment=RandomResizedCrop(name="random-resized-crop", scale=SCALE),
        views=(View("clip", (SIZE, SIZE)),),
        channels=3,
        seed=0,
        purpose="pretrain",
    )
    contents = [file.read_bytes() for file in files]

    def ours(turn: int) -> None:
        for index in range(samples):
            reader.read(Key(turn, index))

    floor, missing = _floor(reader, contents)
    size = round(sum(map(len, contents)) / samples / 1e3)
    yield Group(
        f"JPEG {WIDTH} x {HEIGHT}, {size} KB, to {SIZE} x {SIZE}",
        "ms an image, one thread",
        {"maekit": ours} | _others(files) | floor,
        scale=1e3 / samples,
        skipped=missing,
        facts={"pixels": _difference(reader, contents)},
    )


def _others(files: list[Path]) -> dict[str, Callable[[int], None]]:
    """Return the pipelines of others, each over all files."""
    import torch
    import torchvision
    from timm.data import create_transform
    from torchvision import transforms
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    bicubic = transforms.InterpolationMode.BICUBIC
    official = transforms.Compose([
        transforms.RandomResizedCrop(SIZE, SCALE, interpolation=bicubic),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ])  # fmt: skip
    newer = v2.Compose([
        v2.RandomResizedCrop(SIZE, SCALE, interpolation=bicubic, antialias=True),
        v2.RandomHorizontalFlip(),
    ])  # fmt: skip
    timms = create_transform(
        SIZE, is_training=True, scale=SCALE, interpolation="bicubic", color_jitter=None,
        auto_augment=None, use_prefetcher=True,
    )  # fmt: skip

    def over_all(read: Callable[[Path], object]) -> Callable[[int], None]:
        def work(_: int) -> None:
            for file in files:
                read(file)

        return work

    io_ = torchvision.io
    return {
        "PIL (MAE's own)": over_all(lambda file: official(Image.open(file).convert("RGB"))),
        "torchvision v2, uint8": over_all(
            lambda file: newer(io_.decode_image(io_.read_file(str(file))))
        ),
        "timm": over_all(lambda file: timms(Image.open(file).convert("RGB"))),
    }


def _floor(
    reader: SampleReader, contents: list[bytes]
) -> tuple[dict[str, Callable[[int], None]], dict[str, str]]:
    """Return what nobody who takes Pillow's filter can be faster than, or why it is left out."""
    name = "decode, resize the box, copy"
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return {}, {name: "simplejpeg is not installed"}
    sources = [reader.dataset.open(index) for index in range(len(contents))]
    plans = [
        [reader.plans(source, Key(turn, index))[0] for index, source in enumerate(sources)]
        for turn in range(16)
    ]
    out = np.empty((SIZE, SIZE, 3), np.uint8)

    def work(turn: int) -> None:
        for content, plan in zip(contents, plans[turn % len(plans)], strict=True):
            top, left, height, width = (round(side) for side in plan.box)
            part = decode_jpeg(content, "RGB")[top : top + height, left : left + width]
            image = Image.fromarray(np.ascontiguousarray(part))
            out[:] = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC))

    return {name: work}, {}


def _difference(reader: SampleReader, contents: list[bytes]) -> str:
    """Say how far what is read is from what Pillow makes of the same plans."""
    apart = []
    for index, content in enumerate(contents):
        (plan,) = reader.plans(reader.dataset.open(index), Key(0, index))
        top, left, height, width = (round(side) for side in plan.box)
        whole = Image.open(io.BytesIO(content)).convert("RGB")
        part = whole.crop((left, top, left + width, top + height))
        wanted = np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        wanted = wanted[:, ::-1] if plan.flip else wanted
        found = reader.read(Key(0, index)).views[0][0, :, 0].transpose(1, 2, 0)
        apart.append(np.abs(found.astype(int) - wanted))
    return f"at most {np.max(apart)} of 255 from Pillow's; {np.mean(np.equal(apart, 0)):.1%} equal"
