"""``maekit recipes new``: look at data, and write a short recipe that is sized for it.

Few samples get a small model at a small size, which trains in minutes on two CPU cores; many get
the papers' models. All of it is a start: the recipe says what to change for more.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from maekit import registry
from maekit.cli.output import say, writing
from maekit.data.order import evenly
from maekit.errors import DataError, RecipeError
from maekit.recipe.dump import to_yaml
from maekit.recipe.naming import MODELINE, SCHEMA, name_for
from maekit.recipe.schema import DataSpec
from maekit.text import listed, quantity

if TYPE_CHECKING:
    from maekit.contracts import Dataset, SourceInfo

LOOKED_AT = 64  # samples that are opened, evenly spaced
FEW, MANY = 5_000, 100_000  # pictures; of videos a tenth: each has many
HELD_OUT = (("val", "valid", "validation"), ("test",))  # folders beside `train`, the first that is
_SECONDS = 1.5  # that a clip spans
_FEWEST, _MOST = 300, 2000  # updates of a small pre-training
_PASSES = 200  # over the data, within those


@dataclass(frozen=True)
class Seen:
    """What lies at a path.

    Attributes:
        kind: the data set that reads it.
        train: path of what is trained on.
        val: path of what is held out, where that is a set of its own.
        samples: how many there are to train on, and to hold out of them.
        classes: samples of each class; empty without labels.
        infos: what the headers of some samples say.
        bad: how many of those could not be opened.
        notes: what is left out, and the like.
    """

    kind: Literal["images", "videos"]
    train: str
    val: str | None
    samples: int
    classes: dict[str, int]
    infos: list[SourceInfo] = field(repr=False)
    bad: int = 0
    notes: tuple[str, ...] = ()

    @property
    def moving(self) -> bool:
        """Whether these are videos."""
        return self.kind == "videos"

    @property
    def side(self) -> int:
        """The median of the shorter sides, in pixels."""
        return int(statistics.median(min(each.height, each.width) for each in self.infos))

    @property
    def channels(self) -> int:
        """Channels that all samples are read with."""
        found = {each.channels for each in self.infos}
        return max(found) if found - {1, 3} else max(found & {1, 3})

    @property
    def plain_colors(self) -> bool:
        """Whether these are gray or color pictures of 8 bits, which ImageNet's statistics fit."""
        return self.channels in {1, 3} and {each.dtype for each in self.infos} == {"uint8"}

    @property
    def size_class(self) -> Literal["few", "some", "many"]:
        """How much there is, which decides on the model."""
        few, many = (FEW // 10, MANY // 10) if self.moving else (FEW, MANY)
        return "few" if self.samples < few else "some" if self.samples < many else "many"

    @property
    def labeled(self) -> bool:
        """Whether there is something to learn from labels."""
        return len(self.classes) > 1


def new(source: str, out: Path | None, overwrite: bool) -> int:
    """Write a recipe for the data at a path, and print where; say what to type next."""
    seen = look(source)
    default = f"{name_for(Path(os.path.abspath(source)))}.yaml"  # noqa: PTH100 - keeps links
    target = out or Path(default)
    if target.is_dir():
        target /= default
    text = written(seen, name_for(target))
    try:
        with writing(target), target.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        hint = "another name with --out, or --overwrite"
        raise RecipeError("this file exists already", where=str(target), hint=hint) from error
    say(str(target))
    for note in seen.notes:
        say(f"note: {note}", err=True)
    say("\n".join(_next_steps(seen, target)), err=True)
    return 0


def _next_steps(seen: Seen, target: Path) -> list[str]:
    verbs = ["pretrain", "finetune", "probe"] if seen.labeled else ["pretrain"]
    lines = [f"cost:     maekit pretrain {target} --dry-run"]
    lines += [f"next:     maekit {verb} {target}" for verb in verbs]
    if not (target.parent / SCHEMA).exists():
        lines.append(f"editors:  maekit recipes schema --out {target.parent / SCHEMA}")
    return lines


def look(source: str) -> Seen:
    """Look at a folder or a list: what it holds, how much, of which sizes and labels.

    Raises:
        DataError: nothing that can be read lies there.
        RecipeError: both pictures and videos do.
    """
    if not os.path.exists(source):  # noqa: PTH110 - of any characters
        hint = "name a folder of images or clips, or a list of them"
        raise DataError("no such file or folder", where=source, hint=hint)
    train, val = _parts(source)
    kind = registry.reader_of(train, "FOLDER")
    if kind not in {"images", "videos"}:
        msg = f"{train} is read by '{kind}', for which maekit writes no recipe"
        raise RecipeError(msg, where=source, hint="`maekit recipes copy quickstart`, and change it")
    dataset = registry.build(registry.spec_of(DataSpec, {"name": kind, "path": train}))
    infos: list[SourceInfo] = []
    errors: list[Exception] = []
    chosen = evenly(len(dataset), LOOKED_AT)
    for index in chosen:
        try:
            infos.append(dataset.open(index).info)
        except (DataError, OSError) as error:
            errors.append(error)
    if not infos:
        msg = f"none of {len(chosen)} samples that were looked at can be read: {errors[0]}"
        raise DataError(msg, where=source, hint="is it the right folder?")
    return Seen(
        "videos" if kind == "videos" else "images",
        train,
        val,
        len(dataset),
        _classes(dataset),
        infos,
        len(errors),
        _notes(dataset, errors, len(chosen)),
    )


def _parts(source: str) -> tuple[str, str | None]:
    """Return what is trained on, and what is held out where folders beside it say so."""
    base = source.rstrip("/") or "/"
    if not os.path.isdir(f"{base}/train"):  # noqa: PTH112
        return source, None
    for names in HELD_OUT:
        for name in names:
            if os.path.isdir(f"{base}/{name}"):  # noqa: PTH112
                return f"{base}/train", f"{base}/{name}"
    return source, None


def _classes(dataset: Dataset) -> dict[str, int]:
    if dataset.classes is None or dataset.labels is None:
        return {}
    counts = np.bincount(np.asarray(dataset.labels), minlength=len(dataset.classes)).tolist()
    return {name: n for name, n in zip(dataset.classes, counts, strict=True) if n}


def _notes(dataset: Dataset, errors: list[Exception], looked: int) -> tuple[str, ...]:
    notes = list(dataset.notes)
    if dataset.left_out:
        notes.append(f"left out: {listed(dataset.left_out)}")
    if errors:
        notes.append(f"{len(errors)} of {looked} looked at cannot be read, as {errors[0]}")
    return tuple(notes)


def written(seen: Seen, name: str) -> str:
    """Return the recipe as YAML, with comments."""
    blocks = [
        f"{MODELINE}\n# {_described(seen)}",
        f"name: {name}",
        "\n".join(_data(seen)),
        _MODELS[seen.kind, seen.size_class].format(patch=_patch(seen), patch3=_patch(seen)),
        "\n".join(_pretrain(seen)),
        "\n".join(_from_labels(seen)),
    ]
    return "\n".join(blocks) + "\n"


def _described(seen: Seen) -> str:
    what = "videos" if seen.moving else "pictures"
    shapes = Counter((each.width, each.height) for each in seen.infos).most_common()
    sizes = f"{shapes[0][0][0]}x{shapes[0][0][1]}"
    sizes += " and others" if len(shapes) > 1 else ""
    channels = quantity(seen.channels, "channels")
    kinds = "/".join(sorted({each.dtype for each in seen.infos}))
    labels = "no labels"
    if seen.labeled:
        low, high = min(seen.classes.values()), max(seen.classes.values())
        labels = f"{len(seen.classes)} classes of {low}" + (f" to {high}" if low < high else "")
    return f"{seen.samples:,} {what}, {sizes}, {channels}, {kinds}; {labels}."


def _data(seen: Seen) -> list[str]:
    path = _scalar(seen.train)
    clip = f", frames: {_frames(seen)}, stride: {_stride(seen)}" if seen.moving else ""
    lines = ["data:", f"  train: {{name: {seen.kind}, path: {path}{clip}}}"]
    share = 0.2 if seen.samples < 1000 else 0.1
    if seen.val is not None:
        stride = f", stride: {_stride(seen)}" if seen.moving else ""
        lines.append(f"  val: {{name: {seen.kind}, path: {_scalar(seen.val)}{stride}}}")
    elif seen.samples > 1:
        note = "of each class, " if seen.labeled else ""
        lines.append(
            f"  val: {{split: {share}}}   # held out, {note}by name; by: folder keeps folders whole"
        )
    size = _size(seen)
    note = f"   # pixels; the files have {seen.side}: more shows more, and costs more"
    lines.append(f"  size: {size}{note if size < seen.side else ''}")
    if seen.channels != 3:
        lines.append(f"  channels: {seen.channels}")
    lines.append(f"  stats: {'imagenet' if seen.plain_colors else 'auto'}")
    return lines


def _size(seen: Seen) -> int:
    """Return a size that patches divide, no larger than the files."""
    most = {"few": 64, "some": 128, "many": 224}[seen.size_class]
    step = 4 if seen.side < 32 else 16 if seen.size_class == "many" and seen.side >= 112 else 8
    return max(step, min(most, seen.side // step * step))


def _patch(seen: Seen) -> int:
    size = _size(seen)
    if size >= 128:
        return 16
    return 8 if size >= 32 and size % 8 == 0 else 4


def _frames(seen: Seen) -> int:
    shortest = sorted(each.frames for each in seen.infos)[len(seen.infos) // 4]
    wanted = 16 if seen.size_class == "many" else 8
    return max(2, min(wanted, shortest // 2 * 2))


def _stride(seen: Seen) -> int:
    """Return the frames between two of a clip: a second and a half, where the videos have that."""
    frames = _frames(seen)
    fps = statistics.median(each.fps or 25.0 for each in seen.infos)
    shortest = sorted(each.frames for each in seen.infos)[len(seen.infos) // 4]
    return max(1, min(round(_SECONDS * fps / frames), shortest // frames))


_MODELS = {
    ("images", "few"): """\
model:   # small, for minutes on two CPU cores; for more: size: small or base, without depth
  backbone: {{name: image-vit, size: tiny, depth: 4, patch: {patch}}}
  decoder: {{name: vit, width: 128, depth: 1, heads: 4}}""",
    ("images", "some"): """\
model:   # for one GPU; size: base for more
  backbone: {{name: image-vit, size: small, patch: {patch}}}
  decoder: {{name: vit, width: 256, depth: 4, heads: 8}}""",
    ("images", "many"): """\
model:   # MAE's ViT-B
  backbone: {{name: image-vit, size: base, patch: {patch}}}
  decoder: {{name: vit, width: 512, depth: 8, heads: 16}}""",
    ("videos", "few"): """\
model:   # small, for minutes on two CPU cores; for more: size: small, without width, depth, heads
  backbone: {{name: video-vit, width: 192, depth: 4, heads: 3, patch: [2, {patch}, {patch}],
    positions: sincos-3d}}
  decoder: {{name: vit, width: 96, depth: 1, heads: 4, positions: sincos-3d}}""",
    ("videos", "some"): """\
model:   # for one GPU; size: base for more
  backbone: {{name: video-vit, size: small, patch: [2, {patch}, {patch}]}}
  decoder: {{name: vit, width: 192, depth: 4, heads: 3}}""",
    ("videos", "many"): """\
model:   # VideoMAE's ViT-B
  backbone: {{name: video-vit, size: base, patch: [2, {patch}, {patch}]}}
  decoder: {{name: vit, width: 384, depth: 4, heads: 6}}""",
}


def _pretrain(seen: Seen) -> list[str]:
    if seen.size_class == "few":
        return _pretrain_few(seen)
    epochs, batch, warmup = (400, 1024, 20) if seen.size_class == "many" else (200, 256, 10)
    masker, target = "{name: random, ratio: 0.75}", "{name: norm-pixel}"
    if seen.moving:
        masker, batch = "{name: tube, ratio: 0.9}", batch // 4
    return [
        "pretrain:",
        f"  masker: {masker}",
        f"  target: {target}",
        "  augment: {name: random-resized-crop, scale: [0.2, 1.0]}   # flip: 0 where sides matter",
        f"  epochs: {epochs}",
        f"  warmup: {{epochs: {warmup}}}",
        f"  batch: {{global: {batch}}}   # where it does not fit: accumulation: 4",
        "  optimizer: {name: adamw, base_lr: 1.5e-4}   # lr = base_lr * global / 256",
    ]


def _pretrain_few(seen: Seen) -> list[str]:
    views = 8 if seen.moving else 32
    steps = max(_FEWEST, min(_MOST, round(seen.samples * _PASSES / views / 100) * 100))
    repeats = 2 if seen.moving else 1
    batch = views // repeats
    base_lr = 1e-3 * 256 / batch
    target = "{name: pixel}" if seen.moving else "{name: norm-pixel}"
    return [
        "pretrain:",
        "  masker: {name: random, ratio: 0.75}   # hidden fraction",
        f"  target: {target}",
        "  augment: {name: random-resized-crop, scale: [0.4, 1.0]}   # flip: 0 where sides matter",
        f"  steps: {steps}   # more is better; with more data, epochs: 100 or so instead",
        f"  warmup: {{steps: {steps // 20}}}",
        f"  batch: {{global: {batch}}}",
        *(["  repeats: 2   # crops of each decoded clip: decoding takes longest"] * seen.moving),
        f"  optimizer: {{name: adamw, base_lr: {base_lr:.3g}}}   # lr = base_lr * global / 256",
        f"  validate: {{every: {max(1, steps // 4)}, samples: 64}}",
        f"  pictures: {{every: {max(1, steps // 2)}}}",
    ]


def _from_labels(seen: Seen) -> list[str]:
    scale = "[0.4, 1.0]" if seen.size_class == "few" else "[0.2, 1.0]"
    lines = [
        "finetune:   # trains the newest pre-training on the labels",
        f"  augment: {{name: random-resized-crop, scale: {scale}}}",
        "  epochs: 20",
        "  batch: {global: auto}   # by the number of samples",
        "  label_smoothing: 0.1",
        "probe:   # judges frozen features, next to raw pixels and an untrained encoder",
        "  kind: linear   # or knn",
        "  pool: mean",
    ]
    if seen.labeled:
        return lines
    what = "path/<class>/*" + (".mp4" if seen.moving else ".jpg")
    return [
        f"# No labels were found: sort the files into folders ({what}), or give a list with",
        "# labels, and take the signs away.",
        *(f"# {line}" for line in lines),
    ]


def _scalar(text: str) -> str:
    """Return text as it stands in a flow mapping."""
    plain = to_yaml([text]).strip().removeprefix("[").removesuffix("]")
    return plain if not set(plain) & set(",{}[]") or plain[0] in "'\"" else f"'{text}'"
