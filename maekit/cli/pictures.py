"""An occasion: draw the same held-out samples again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from maekit.cli.reporters import Reporters, TensorBoard
from maekit.engine.events import Saved
from maekit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from maekit.engine.state import TrainState


class Pictures:
    """Writes ``pictures/step-XXXXXXXX.png``, and tells TensorBoard."""

    def __init__(self, draw: Callable[[], Image | None], folder: Path, emit: Reporters) -> None:
        self.draw = draw
        self.folder = folder / "pictures"
        self.emit = emit

    def __call__(self, state: TrainState) -> None:
        """Draw.

        Raises:
            StorageError: the file cannot be written.
        """
        image = self.draw()
        if image is None:
            return
        path = self.folder / f"step-{state.step:08d}.png"
        try:
            self.folder.mkdir(exist_ok=True)
            image.save(path)
        except OSError as error:
            msg = f"the picture could not be written: {error}"
            raise StorageError(msg, where=str(path), hint="free some space") from error
        for member in self.emit.members:
            if isinstance(member, TensorBoard):
                member.picture(image, state.step)
        self.emit(Saved(state.step, "picture", str(path)))
