"""From measured rates to a sentence: what holds a training back, and which key to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from maekit.ranks import cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from maekit.engine.job import Job

_EVEN = 1.15  # rates that differ by less hold each other back
_LOW_MFU = 0.3
_STAGES = {
    "read": "opening files",
    "decode": "decoding",
    "resize": "cutting and resizing",
    "mask": "drawing masks",
    "hand_over": "handing samples over",
}


class Advice(NamedTuple):
    """What holds a training back.

    Attributes:
        bottleneck: the part that is slower by itself.
        stage: of the loader, what takes most of its time; None for the model.
        key: of the recipe, with the value to set; None where no key helps.
        advice: the same in a sentence.
    """

    bottleneck: Literal["model", "loader", "both"]
    stage: str | None
    key: str | None
    advice: str


def advise(
    job: Job, model: Mapping[str, Any], loader: Mapping[str, Any], both: Mapping[str, Any]
) -> Advice:
    """Name what is slower by itself, and the key that changes it."""
    trains, reads = model["samples_per_second"], loader["samples_per_second"]
    rates = f"alone, the model takes {trains:.3g} samples/s and the loader gives {reads:.3g}"
    wait = f"{both['data_wait']:.0%} of a training is waiting for data"
    if reads * _EVEN < trains:
        stage = max(_STAGES, key=lambda name: loader[f"{name}_ms"])
        share = loader[f"{stage}_ms"] / max(1e-9, sum(loader[f"{name}_ms"] for name in _STAGES))
        key, how = _for_loader(job, stage)
        what = f"{_STAGES[stage]} takes {share:.0%} of a sample's time"
        return Advice(
            "loader", stage, key, f"The loader holds it back: {rates}; {what}, {wait}: {how}."
        )
    key, how = _for_model(job, model)
    if trains * _EVEN < reads:
        return Advice("model", None, key, f"The model holds it back: {rates}; {wait}: {how}.")
    text = f"Both hold it back: {rates}; {wait}; for the model, {how}."
    return Advice("both", None, key, text)


def _for_loader(job: Job, stage: str) -> tuple[str | None, str]:
    workers, most = job.workers, cores()
    if stage == "read":  # waiting takes no core
        more = max(2 * workers, 2 * most)
        here = f"data.workers={more}"
        return here, f"set {here}, as waiting for a disk takes no core, or move the files nearer"
    if workers < most:
        return f"data.workers={most}", f"set data.workers={most}, one for each core"
    repeats = getattr(job.section, "repeats", None)
    if repeats is not None and stage == "decode":
        more = 2 * repeats
        here = f"{job.verb}.repeats={more}"
        return here, f"all {most} cores read; set {here}, more views of each decoded sample"
    return None, f"all {most} cores read; smaller files, or a machine with more cores, help"


def _for_model(job: Job, model: Mapping[str, Any]) -> tuple[str | None, str]:
    verb, section, kind = job.verb, job.section, job.device.type
    if kind == "cuda" and job.precision.name == "fp32":
        return f"{verb}.precision=bf16", f"set {verb}.precision=bf16"
    if kind == "cuda" and not section.compiles(kind):
        return f"{verb}.compile=auto", f"set {verb}.compile=auto"
    if kind == "cuda" and model["mfu"] < _LOW_MFU:
        here = f"{verb}.batch.per_device=auto"
        return here, f"{model['mfu']:.0%} of the device's products are used; set {here}"
    where = "more devices" if kind == "cuda" else "a GPU"
    key = "model.backbone.size"
    return key, f"a smaller {key}, or {where}, makes it faster"
