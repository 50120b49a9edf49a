"""maekit: masked-autoencoder pre-training of images and videos. Its import brings no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maekit.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from torch import Tensor

    from maekit.engine.events import Event
    from maekit.evaluate.predict import LoadedClassifier
    from maekit.library import TrainingLoader
    from maekit.model import MaskedAutoencoder

__all__ = ["__version__", "build", "load", "load_classifier", "loader", "masks", "read", "run"]


def load(source: str | Path, clip: tuple[int, int, int] | None = None) -> MaskedAutoencoder:
    """Load a model from a run folder, a weights file of maekit or of others, or ``timm:NAME``.

    Weights of facebookresearch/mae and mae_st, VideoMAE and VideoMAEv2, MoCo v3, timm's plain ViTs
    and transformers' ViTMAE and VideoMAE are recognized by their keys.

    Args:
        source: where the weights are.
        clip: frames, height and width in pixels, where the model shall take others than those that
            it was trained at; its positions are then resized.

    Returns:
        The model in evaluation mode on the CPU. ``model.encode(pixels [B, C, T, H, W])`` gives
        features; ``model.statistics`` has the mean and std that pixels are normalized with.

    Raises:
        WeightsError: the file cannot be read or does not match its own header.
        PartError: the clip does not divide into the model's patches.
    """
    from maekit.engine.build import load_model

    model, _ = load_model(source, clip)
    return model


def load_classifier(
    source: str | Path,
    classes: Sequence[str] | None = None,
    clip: tuple[int, int, int] | None = None,
) -> LoadedClassifier:
    """Load a classifier from a run folder, or a weights file of maekit or of others.

    That is what ``maekit finetune`` or the linear ``maekit probe`` left, or a fine-tuned model or
    linear probe of facebookresearch/mae and mae_st, VideoMAE, VideoMAEv2, timm's plain ViTs or
    transformers.

    Args:
        source: where the weights are.
        classes: names of the outputs, in their order, where the file has none; default: numbers.
        clip: frames, height and width in pixels, where the model shall take others than those that
            it was trained at; its positions are then resized.

    Returns:
        What unpacks into the classifier, in evaluation mode on the CPU, and its header.
        ``.predict(files)`` says what is on pictures and videos, as ``maekit predict`` does.
        ``model(pixels)`` gives logits ``[B, K]`` of ``model.normalize(pixels in [0, 1])``,
        ``model.features`` what the head gets; ``header.classifier.outputs`` names the classes.

    Raises:
        WeightsError: the file cannot be read, or holds no classifier.
        RecipeError: there are more or fewer names than outputs.
    """
    from maekit.evaluate.predict import LoadedClassifier

    return LoadedClassifier(source, classes, clip)


def build(
    recipe: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> MaskedAutoencoder:
    """Build the model that a recipe pre-trains, freshly initialized by its seed.

    Args:
        recipe: a file, the name of a shipped recipe, or a mapping as a file would hold it.
        overrides: ``"data.size=64"`` sets a key, ``"~data.val"`` removes one.

    Raises:
        MaekitError: what is wrong in the recipe. The data is read only for ``data.stats: auto``.
    """
    from maekit.library import build as work

    return work(recipe, overrides)


def loader(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    model: MaskedAutoencoder | None = None,
    workers: int | None = None,
) -> TrainingLoader:
    """Open a recipe's training samples and masks for a training loop of one's own.

    ``for batch in loader`` is an epoch, the next loop the next one; ``len(loader)`` counts batches.
    ``loader.model`` is a fresh model; ``loader.model(batch.pixels, batch.hidden).loss`` is its loss
    on the hidden patches, that of ``maekit pretrain`` where a recipe asks for no more (a decoder
    masker, ``loss_on: all``) and all samples could be read.

    Args:
        recipe: as for ``build``.
        overrides: likewise.
        model: one to read for; default: a fresh one of the recipe.
        workers: loader processes; default: as the recipe says.

    Raises:
        MaekitError: what is wrong with recipe or data.
    """
    from maekit.library import TrainingLoader

    return TrainingLoader(recipe, overrides, model=model, workers=workers)


def masks(
    masker: str,
    model: MaskedAutoencoder,
    count: int = 1,
    *,
    seed: int = 0,
    **options: Any,  # noqa: ANN401 - a part's own
) -> Tensor:
    """Draw masks for a model: bool ``[count, N]``, True = hidden.

    Args:
        masker: ``"random"``, ``"block"``, ``"tube"`` ..., or a plugin's.
        model: whose grid of N tokens is masked.
        count: how many.
        seed: of all of them.
        options: of the masker, as ``ratio=0.75``.

    Raises:
        MaekitError: there is no such masker or option, or it hides nothing, or all.
    """
    from maekit.arrays import draw_masks

    clip = (*model.clip, len(model.statistics.mean))
    unit = model.backbone.mask_unit
    return draw_masks(masker, model.grid, unit, count=count, seed=seed, clip=clip, **options)


def read(path: str | Path, model: MaskedAutoencoder | None = None) -> Any:  # noqa: ANN401
    """Read an image or video, upright, as maekit does.

    Args:
        path: of the file.
        model: whose view of it is wanted.

    Returns:
        All frames as they are, a numpy array ``[T, H, W, C]``; with a model what that is shown: its
        middle, a float32 tensor ``[1, C, T, H, W]`` in [0, 1], for ``model.reconstruct`` or
        ``model.encode(model.normalize(pixels))``. An image model is shown up to 16 frames of a
        video: then they are ``[frames, C, 1, H, W]``.

    Raises:
        DataError: it cannot be read.
    """
    from maekit.library import read as work

    return work(path, model)


def run(
    recipe: str | Path | Mapping[str, Any] | None,
    verb: str = "pretrain",
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    source: str | Path | None = None,
    classes: Sequence[str] | None = None,
    device: str | None = None,
    seed: int | None = None,
    compare_expected: bool = False,
    accept_data: bool = False,
    extend: str | None = None,
    extend_as: str | None = None,
    lock: bool = True,
    signals: bool = False,
    on_event: Callable[[Event], None] | None = None,
) -> dict[str, Any]:
    """Run a verb as the command line does, in a run folder that it can be resumed from.

    Nothing is printed; log.txt and metrics.jsonl are written into the folder. Logging, environment
    variables and signal handlers stay as they are, and it may run in any thread. It seeds torch's
    global generator. An interruption (KeyboardInterrupt) passes; ``resume=True`` then continues
    from the newest checkpoint. Windows and macOS start loader workers anew: call it below
    ``if __name__ == "__main__":`` there, or set ``data.workers=0``.

    Args:
        recipe: a file, the name of a shipped recipe (``"quickstart"``), or a mapping as a file
            would hold it; of ``evaluate`` None stands for that of the run that ``source`` is of.
        verb: ``pretrain``, ``finetune``, ``probe``, ``tokenizer`` or ``evaluate``.
        overrides: ``"pretrain.epochs=10"`` sets a key, ``"~data.val"`` removes one.
        out: run folder; default: ``runs/<recipe>/<n>``.
        resume: continue from the newest good checkpoint; start where there is none.
        overwrite: move an earlier run in ``out`` away first.
        source: weights to start from: a run, a weights file, ``timm:NAME``, ``hf:FOLDER``, and
            for ``finetune`` and ``probe`` also ``scratch``; the classifier that is evaluated.
        classes: names of that classifier's outputs, where its weights have none.
        device: ``cpu``, ``cuda``, ``cuda:N`` or ``mps``; default: the best there is.
        seed: overrides the recipe's.
        compare_expected: say in ``expected`` whether results lie in the recipe's bands.
        accept_data: resume though the data is not what it was when the run began.
        extend: with ``resume`` a larger budget to go on to, as ``"pretrain.epochs=1600"``.
        extend_as: ``planned`` (the learning rate as if it had been meant so from the start) or
            ``restart`` (a new warm-up and cosine over what is left).
        lock: lock the folder against other processes; False: for file systems that have no locks.
        signals: save a checkpoint and stop at SIGINT, SIGTERM, SIGUSR1 or SIGHUP; needs the main
            thread. The result's ``exit`` is then 75.
        on_event: called with every event of ``maekit.engine.events``: notes, steps, measurements,
            files.

    Returns:
        What result.json holds; ``["weights"]`` is the path of the weights.

    Raises:
        MaekitError: what is wrong, where, and what to try.
    """
    from pathlib import Path

    from maekit.engine.extension import Request
    from maekit.engine.run import RunOptions
    from maekit.verbs import run as work

    longer = Request.of(verb, extend, extend_as, resume=resume)
    options = RunOptions(
        out=None if out is None else Path(out),
        resume=resume,
        overwrite=overwrite,
        source=None if source is None else str(source),
        compare=compare_expected,
        signals=signals,
        locks=lock,
        accept_data=accept_data,
        extend=None if longer is None else longer.how,
    )
    words = [*overrides, *([] if seed is None else [f"seed={seed}"])]
    words = words if longer is None else longer.words(words)
    listener = on_event or (lambda _: None)
    return work(
        recipe,
        verb,
        options,
        overrides=words,
        classes=classes,
        device=device,
        listener=listener,
    )
