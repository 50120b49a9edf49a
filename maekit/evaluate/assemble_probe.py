"""A probe from its resolved recipe: sets, labels, weights, and what is judged beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maekit.data.bad_files import BadFiles
from maekit.engine.events import Emit, Note
from maekit.engine.feed import open_dataset
from maekit.engine.precision import Precision
from maekit.errors import RecipeError
from maekit.evaluate.baselines import FrameDifferenceBaseline, PixelBaseline, untrained
from maekit.evaluate.encoder import SCRATCH, load_encoder
from maekit.evaluate.features import Features, auto_pool
from maekit.evaluate.labels import announce_labels, check_labels
from maekit.evaluate.probe import DIFFERENCES, MODEL, PIXELS, RANDOM, ProbeJob
from maekit.evaluate.probe_heads import check_head

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from maekit.evaluate.features import Pool
    from maekit.evaluate.predictions import Extractor
    from maekit.model import MaskedAutoencoder
    from maekit.recipe.probe import Probe
    from maekit.recipe.schema import DataSpec, Recipe
    from maekit.weights.header import Header


def assemble_probe(
    recipe: Recipe,
    source: str,
    device: torch.device,
    emit: Emit,
    *,
    bad_files: Path | None = None,
) -> ProbeJob:
    """Open data and weights, look at the labels, build what is judged.

    Args:
        recipe: resolved for the verb.
        source: of weights, as ``--from`` takes it.
        bad_files: where unreadable training files are recorded.

    Raises:
        RecipeError: no probe section, no data.val, or the encoder has not what is asked of it.
        WeightsError: the weights are of another model than the recipe's.
        DataError: labels that cannot be judged.
    """
    probe, spec = required_probe(recipe)
    data = recipe.data
    train, val = open_dataset(data.train, "data.train"), open_dataset(spec, "data.val")
    labeled = check_labels(train, val)
    announce_labels(train, labeled, emit)
    _warn_sampling(data.train, spec, emit)
    model, header = load_encoder(source, recipe)
    check_head(probe, model.backbone.width)
    pool = auto_pool(probe.pool, model.backbone.prefix_tokens)
    taken: Pool = "tokens" if probe.kind == "attentive" else pool
    precision = Precision.of(probe.precision, device, where="probe.precision")
    # Without training, the model is its own random floor.
    random_encoder = model if source == SCRATCH else untrained(header, recipe.seed)
    return ProbeJob(
        recipe=recipe,
        probe=probe,
        device=device,
        header=header,
        train=train,
        val=val,
        labeled=labeled,
        pool=taken,
        precision=precision,
        extractors=_extractors(
            probe, header, model.to(device), random_encoder.to(device), taken, precision
        ),
        encoder=model,
        source=source,
        ledger=BadFiles(bad_files, len(train), data.train.max_bad_fraction),
        emit=emit,
    )


def _warn_sampling(train: DataSpec, val: DataSpec, emit: Emit) -> None:
    """A probe of clips that are cut in two ways is seldom meant."""
    if (train.stride, train.sampling) != (val.stride, val.sampling):
        text = "data.train and data.val sample frames differently"
        how = f"{train.sampling}, stride {train.stride} and {val.sampling}, stride {val.stride}"
        emit(Note(f"{text}: {how}", warning=True))


def _extractors(
    probe: Probe,
    header: Header,
    model: MaskedAutoencoder,
    random_encoder: MaskedAutoencoder,
    pool: Pool,
    precision: Precision,
) -> dict[str, Extractor]:
    """What is judged, by name."""
    # The paper's protocol exports encoder and head as a classifier: features are a classifier's.
    paper = probe.kind == "linear" and probe.protocol == "paper"
    if paper and probe.layer is not None:
        msg = "probe.layer cannot be used with protocol: paper, which takes the encoder's output"
        raise RecipeError(msg, where="probe.layer", hint="probe.protocol=cached, or leave it out")

    def features_of(encoder: MaskedAutoencoder) -> Features:
        return Features(encoder, pool, probe.layer, precision, pool_first=paper)

    features = features_of(model)
    random = features if random_encoder is model else features_of(random_encoder)
    tokens = probe.kind == "attentive"
    extractors: dict[str, Extractor] = {
        MODEL: features,
        RANDOM: random,
        PIXELS: PixelBaseline(probe.pixels, model.normalize, tokens=tokens),
    }
    if header.clip[0] > 1:
        extractors[DIFFERENCES] = FrameDifferenceBaseline(
            probe.pixels, model.normalize, tokens=tokens
        )
    return extractors


def required_probe(recipe: Recipe) -> tuple[Probe, DataSpec]:
    """The probe section, and the set that it is judged on.

    Raises:
        RecipeError: one of them is missing.
    """
    if recipe.probe is None:
        raise RecipeError("the recipe has no probe section", where="probe", hint="add `probe:`")
    if recipe.data.val is None:
        msg = "a probe is judged on data.val, and there is none"
        hint = "data.val.name=images data.val.path=FOLDER (or a list with labels)"
        raise RecipeError(msg, where="data.val", hint=hint)
    return recipe.probe, recipe.data.val
