"""An occasion: draw the same held-out samples again; and the film of all of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from maekit.atomic import write_bytes
from maekit.cli.reporters import Reporters, TensorBoard
from maekit.engine.events import Note, Saved
from maekit.errors import StorageError
from maekit.visualize.step_pictures import name_of
from maekit.visualize.timelapse import NAME, write_timelapse

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from maekit.engine.state import TrainState

FOLDER = "pictures"


class Pictures:
    """Writes ``pictures/step-XXXXXXXX.png``, and tells TensorBoard."""

    def __init__(self, draw: Callable[[], Image | None], folder: Path, emit: Reporters) -> None:
        self.draw = draw
        self.folder = folder / FOLDER
        self.emit = emit

    def __call__(self, state: TrainState) -> None:
        """Draw.

        Raises:
            StorageError: the file cannot be written.
        """
        image = self.draw()
        if image is None:
            return
        path = self.folder / name_of(state.step)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        try:
            self.folder.mkdir(exist_ok=True)
            write_bytes(path, buffer.getvalue())
        except OSError as error:
            msg = f"the picture could not be written: {error}"
            raise StorageError(msg, where=str(path), hint="free some space") from error
        for member in self.emit.members:
            if isinstance(member, TensorBoard):
                member.picture(image, state.step)
        self.emit(Saved(state.step, "picture", str(path)))


def film(folder: Path, step: int, emit: Reporters) -> None:
    """Write ``pictures/timelapse.gif`` of a run's pictures, if it drew two or more.

    It can be made again at any time, so that failing to write it only warns.
    """
    pictures = folder / FOLDER
    try:
        path = write_timelapse(pictures)
    except OSError as error:
        emit(Note(f"{pictures / NAME} could not be written: {error}", warning=True))
        return
    if path is not None:
        emit(Saved(step, "time-lapse", str(path)))
