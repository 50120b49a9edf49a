"""Which weights pictures are made with, and what the run beside them says of its clips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maekit.demo import WEIGHTS
from maekit.engine.batches import open_dataset, required_pretrain
from maekit.engine.checkpoint import Checkpoints
from maekit.engine.run_folder import verb_of
from maekit.errors import MaekitError, WeightsError
from maekit.recipe.load import load, with_overlays
from maekit.weights.importer import is_foreign
from maekit.weights.safetensors_io import find_weights, read_header

if TYPE_CHECKING:
    from maekit.recipe.schema import Recipe

DEMO = "demo weights"


@dataclass(frozen=True)
class Chosen:
    """Weights, as ``load_model`` takes them.

    Attributes:
        said: for people.
        folder: of the run that they are from; None where there is none.
        caption: what pictures say of them; empty for weights of one's own.
        notes: what was passed over, and why.
    """

    source: str
    said: str
    folder: Path | None
    caption: str = ""
    notes: tuple[str, ...] = ()

    def recipe(self) -> Recipe | None:
        """The recipe of the run that the weights are from, with the overlays of its verb."""
        if self.folder is None or not (self.folder / "recipe.yaml").is_file():
            return None
        return with_overlays(load(self.folder / "recipe.yaml"), self.verb).recipe

    @property
    def verb(self) -> str:
        """What the run is of; weights without a run beside them count as pre-trained."""
        return (None if self.folder is None else verb_of(self.folder)) or "pretrain"


def choose(source: str | None, runs: Path, *, decoder: bool = True) -> Chosen:
    """The weights asked for; else of the newest run below ``runs``; else the demo's.

    Args:
        decoder: whether only runs that can predict will do.

    Raises:
        RecipeError: what was asked for is not there.
    """
    if source is not None:
        if is_foreign(source):
            return Chosen(source, source, None)
        path = find_weights(source)
        return Chosen(source, str(path), _run_of(path))
    notes = []
    for _, weights in sorted(_weights_below(runs), reverse=True):
        try:
            header = read_header(weights)
        except WeightsError as error:
            notes.append(f"passed over {weights}: {error.what}")
            continue
        if not decoder or (header.decoder is not None and header.target is not None):
            return Chosen(
                str(weights), f"{weights} (the newest run)", _run_of(weights), notes=tuple(notes)
            )
    return Chosen(str(WEIGHTS), f"{DEMO} ({WEIGHTS})", WEIGHTS.parent, DEMO, tuple(notes))


def _weights_below(runs: Path) -> Iterator[tuple[int, Path]]:
    """The weights of each run, with the time that they were written."""
    for folder in runs.glob("*/*"):
        if not folder.is_dir():
            continue
        try:
            weights = find_weights(folder)
            written = weights.stat().st_mtime_ns
        except (MaekitError, FileNotFoundError):
            continue  # it has saved nothing yet, or is just now replacing a checkpoint
        yield written, weights


def _run_of(weights: Path) -> Path | None:
    """The folder of the run that weights, or those of a checkpoint, lie in."""
    folder = weights.absolute().parent
    if folder.parent.name == "checkpoints":
        folder = folder.parent.parent
    return folder if (folder / "recipe.yaml").is_file() else None


def training_samples(folder: Path, recipe: Recipe) -> int:
    """How many samples a run trains on: as its newest checkpoint says, else counted.

    Raises:
        DataError: no checkpoint says, and the data is not there.
    """
    checkpoints = Checkpoints(folder / "checkpoints", required_pretrain(recipe).checkpoint.keep)
    checkpoint, _ = checkpoints.newest_good()
    if checkpoint is not None and "train_samples" in checkpoint.state["extra"]:
        return int(checkpoint.state["extra"]["train_samples"])
    return len(open_dataset(recipe.data.train, "data.train"))
