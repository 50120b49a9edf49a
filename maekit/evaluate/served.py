"""A whole classifier for people without maekit: its graph, its preprocessing, a snippet, a check.

What it takes are pixels in [0, 1], ``[batch, C, T, H, W]``, of the center view; what it gives are
probabilities, or values, ``[batch, K]``. Normalization is part of the graphs that are written here
(ONNX, torch.export); timm and transformers keep it outside, as is usual there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from maekit.atomic import write_atomically, write_text
from maekit.errors import WeightsError
from maekit.evaluate.labels import scores_of
from maekit.weights.export_onnx import BOUND, CHECKED, export_module, noise
from maekit.weights.safetensors_io import header_text

if TYPE_CHECKING:
    from maekit.evaluate.classifier import Classifier
    from maekit.evaluate.scorer import Scorer
    from maekit.weights.header import HeadKind

SCORES = "scores"
ABOUT = "preprocessing"  # the name of what says how pixels are made, as JSON
Answers = Callable[[Tensor], Tensor]  # pixels in [0, 1] to scores


class Served(nn.Module):
    """The module that is exported: pixels in [0, 1] to probabilities, or values."""

    def __init__(self, classifier: Classifier, kind: HeadKind) -> None:
        super().__init__()
        self.classifier, self.kind = classifier, kind

    def forward(self, pixels: Tensor) -> Tensor:
        """Score pixels ``[B, C, T, H, W]``."""
        return scores_of(self.kind, self.classifier(self.classifier.normalize(pixels)))


def served(scorer: Scorer) -> Served:
    """Return the module of a classifier that is loaded on the CPU."""
    return Served(scorer.model, scorer.described.kind).eval()


def preprocessing(scorer: Scorer) -> dict[str, Any]:
    """Say how pixels are made of a file, and what the outputs are called."""
    header, described, spec = scorer.header, scorer.described, scorer.spec
    frames, height, width = header.clip
    return {
        "kind": described.kind,
        "classes": list(described.outputs),
        "channels": header.channels,
        "frames": frames,
        "stride": spec.stride if frames > 1 else 1,
        "sampling": spec.sampling,
        "rate": spec.rate,
        "size": [height, width],
        "fit": scorer.rendering.fit,
        "enlarge": scorer.views.enlarge,
        "interpolation": scorer.views.interpolation,
        "range": scorer.rendering.span,
        "mean": list(header.mean),
        "std": list(header.std),
        "license": header.license,
        "source": header.source,
    }


def write_onnx(scorer: Scorer, path: Path) -> float:
    """Write an ONNX file; return how far onnxruntime's scores are from ours.

    Raises: as ``maekit.weights.export_onnx.export_module``.
    """
    module = served(scorer)
    size = sum(tensor.nbytes for tensor in module.state_dict().values())
    about = preprocessing(scorer)
    more = {ABOUT: json.dumps(about), "classes": json.dumps(about["classes"])}
    shape = (scorer.header.channels, *scorer.header.clip)
    header = scorer.header
    return export_module(module, shape, path, header, size=size, output=SCORES, more=more)


def write_program(scorer: Scorer, path: Path) -> float:
    """Write a program of ``torch.export``; return how far its scores are from ours.

    Raises:
        WeightsError: they are too far; nothing is written.
        StorageError: the file cannot be written.
    """
    module, shape = served(scorer), (scorer.header.channels, *scorer.header.clip)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(module, (noise(shape, 2),), dynamic_shapes={"pixels": batch})
    about, header = json.dumps(preprocessing(scorer)), header_text(scorer.header)
    files = {f"{ABOUT}.json": about, "maekit.json": header}
    apart = 0.0

    def write(draft: Path) -> None:
        nonlocal apart
        with draft.open("wb") as file:
            torch.export.save(program, file, extra_files=files)
        with draft.open("rb") as file:
            again: Any = torch.export.load(file).module()
        apart = difference(scorer, again)

    write_atomically(path, write)
    return apart


@torch.no_grad()
def difference(scorer: Scorer, answers: Answers) -> float:
    """Return how far others' scores of noise are from ours, at most.

    Raises:
        WeightsError: further than 1e-4, of the largest.
    """
    module, shape = served(scorer), (scorer.header.channels, *scorer.header.clip)
    apart = 0.0
    for batch in CHECKED:
        pixels = noise(shape, batch).sigmoid()
        ours, theirs = module(pixels), answers(pixels).float()
        if ours.shape != theirs.shape:
            msg = f"scores are {list(theirs.shape)}, not {list(ours.shape)}"
            raise WeightsError(msg, where="--to", hint="use --to onnx or export")
        apart = max(apart, float((ours - theirs).abs().max() / ours.abs().max()))
    if not apart <= BOUND:
        msg = f"what was written scores {apart:.2g} of the largest value away from the classifier"
        raise WeightsError(msg, where="--to", hint="use --to onnx or export, or another version")
    return apart


def timm_answers(scorer: Scorer, model: nn.Module) -> Answers:
    """Let a model of timm's answer: it takes normalized pictures ``[B, C, H, W]``."""
    kind = scorer.described.kind
    return lambda pixels: scores_of(kind, model(scorer.model.normalize(pixels)[:, :, 0]))


def transformers_answers(scorer: Scorer, folder: Path) -> Answers | None:
    """Let transformers' model in a folder answer; None where transformers is not installed."""
    try:
        import transformers
    except ImportError:
        return None
    moving = scorer.header.clip[0] > 1
    name = "AutoModelForVideoClassification" if moving else "AutoModelForImageClassification"
    model = getattr(transformers, name).from_pretrained(str(folder)).eval()
    kind = scorer.described.kind

    def answers(pixels: Tensor) -> Tensor:
        normal = scorer.model.normalize(pixels)
        given = normal.transpose(1, 2) if moving else normal[:, :, 0]
        return scores_of(kind, model(pixel_values=given).logits)

    return answers


_FRAMES = """\
frames = [frame.to_image() for frame in av.open({file!r}).decode(video=0)]
"""
_CLIPS: Mapping[str, str] = {
    "dense": """\
few = frames[::{stride}]  # the clip in the middle
start = max(0, (len(few) - {frames}) // 2)
chosen = [few[min(start + n, len(few) - 1)] for n in range({frames})]
""",
    "": """\
chosen = [frames[round(n)] for n in np.linspace(0, len(frames) - 1, {frames})]  # near: {sampling}
""",
}
_PICTURE = """\
chosen = [ImageOps.exif_transpose(Image.open({file!r})).convert({mode!r})]
"""
_CROP = """\
def view(image, width={width}, height={height}):  # its middle, of the aspect that is trained on
    side = min(image.width / width, image.height / height) / {enlarge}
    left, top = (image.width - side * width) / 2, (image.height - side * height) / 2
    box = (left, top, left + side * width, top + side * height)
    return image.resize((width, height), Image.{filter}, box=box)
"""
_STRETCH = """\
def view(image):
    return image.resize(({width}, {height}), Image.{filter})
"""
_PAD = """\
def view(image):  # all of it, with the mean around
    return ImageOps.pad(image, ({width}, {height}), Image.{filter}, {color})
"""
_PIXELS = """\
pixels = np.stack([np.asarray(view(image), np.float32) / 255 for image in chosen])
pixels = pixels.reshape({frames}, {height}, {width}, {channels}).transpose(3, 0, 1, 2)[None]
"""
_RUN: Mapping[str, str] = {
    "onnx": """\
session = onnxruntime.InferenceSession({path!r})
(scores,) = session.run(None, {{"pixels": pixels}})
""",
    "export": """\
model = torch.export.load({path!r}).module()
scores = model(torch.from_numpy(pixels)).detach().numpy()
""",
    "timm": """\
model = {call}.eval()
mean, std = (np.float32({mean}).reshape(-1, 1, 1), np.float32({std}).reshape(-1, 1, 1))
with torch.no_grad():
    scores = model(torch.from_numpy((pixels[:, :, 0] - mean) / std)).{activation}.numpy()
""",
    "hf": """\
model = transformers.{auto}.from_pretrained({path!r})
mean, std = (np.float32({mean}).reshape(-1, 1, 1, 1), np.float32({std}).reshape(-1, 1, 1, 1))
given = torch.from_numpy((pixels - mean) / std){given}
with torch.no_grad():
    scores = model(pixel_values=given).logits.{activation}.numpy()
""",
}
_NEEDS = {
    "onnx": ["onnxruntime"],
    "export": ["torch"],
    "timm": ["timm", "torch"],
    "hf": ["torch", "transformers"],
}
_ACTIVATIONS = {"multiclass": "softmax(1)", "multilabel": "sigmoid()", "regression": "float()"}


def snippet(to: str, path: Path, about: Mapping[str, Any], call: str = "") -> str:
    """Write the Python, without maekit, that runs what was written on a file.

    Args:
        to: what it was written for.
        path: where.
        about: what ``preprocessing`` returned.
        call: timm's call that builds the model.
    """
    moving = about["frames"] > 1
    height, width = about["size"]
    color = tuple(round(255 * each) for each in about["mean"])
    values = {
        **{key: about[key] for key in ("frames", "stride", "sampling", "enlarge", "channels")},
        "height": height,
        "width": width,
        "mode": "L" if about["channels"] == 1 else "RGB",
        "filter": str(about["interpolation"]).upper(),
        "color": color if len(color) > 1 else color[0],
        "file": "clip.mp4" if moving else "photo.jpg",
        "path": str(path),
        "call": call,
        "mean": about["mean"],
        "std": about["std"],
        "activation": _ACTIVATIONS[about["kind"]],
        "auto": f"AutoModelFor{'Video' if moving else 'Image'}Classification",
        "given": ".transpose(1, 2)" if moving else "[:, :, 0]",
    }
    names = sorted([*(["av"] if moving else []), "json", *_NEEDS[to]])
    parts = [f"import {', '.join(names)}\nimport numpy as np\nfrom PIL import Image, ImageOps\n\n"]
    parts.append({"crop": _CROP, "stretch": _STRETCH, "pad": _PAD}[about["fit"]] + "\n")
    parts += [_FRAMES, _CLIPS.get(about["sampling"], _CLIPS[""])] if moving else [_PICTURE]
    parts += [_PIXELS, _RUN[to]]
    text = "".join(part if part.startswith("import ") else part.format(**values) for part in parts)
    beside = str(about_path(to, path))
    text += f'classes = json.load(open({beside!r}))["classes"]\n'
    return text + "print(sorted(zip(scores[0].tolist(), classes), reverse=True)[:5])\n"


def about_path(to: str, path: Path) -> Path:
    """Return where what ``preprocessing`` says is written."""
    return path / f"{ABOUT}.json" if to == "hf" else path.with_name(f"{path.name}.json")


def write_about(to: str, path: Path, about: Mapping[str, Any]) -> None:
    """Write how pixels are made, and the names of classes, beside a file or into its folder."""
    write_text(about_path(to, path), json.dumps(about, indent=1, ensure_ascii=False) + "\n")
