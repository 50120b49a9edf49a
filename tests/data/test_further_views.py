"""Views that a target asks for beside the clip: more frames of it, resized as it is."""

from __future__ import annotations

import numpy as np
from loader_fakes import Fakes, make_reader

from maekit.contracts import View
from maekit.data.order import Key
from maekit.recipe.schema import DataSpec
from maekit.recipe.sections import NoAugment


def test_the_loader_reads_the_frames_between() -> None:
    """As the recipe's clip is read: 2T frames at half its stride, cut and resized alike."""

    class Numbered(Fakes):
        def clip(self, _: int) -> np.ndarray:
            ramp = np.arange(40, dtype=np.uint8)[:, None, None, None]
            return np.broadcast_to(ramp, (40, 8, 12, 3)).copy()

    reader = make_reader(
        Numbered(shape=(40, 8, 12, 3)),
        spec=DataSpec(name="fakes", frames=8, stride=4),
        augment=NoAugment(name="none", interpolation="bilinear"),
        views=(View("clip", (8, 12)), View("double", (8, 12), None, 16)),
        masker=None,
    )
    for index in range(5):
        clip, double = (view[0, 0, :, 0, 0].tolist() for view in reader.read(Key(0, index)).views)
        assert clip == list(range(clip[0], clip[0] + 32, 4))
        assert double == list(range(clip[0], clip[0] + 32, 2))


def test_a_view_may_be_resized_as_the_clip_is() -> None:
    views = (View("clip", (5, 5)), View("same", (5, 5), None), View("other", (5, 5), "bicubic"))
    augment = NoAugment(name="none", interpolation="bilinear")
    reader = make_reader(Fakes(shape=(1, 16, 16, 3)), augment=augment, views=views, masker=None)
    clip, same, other = reader.read(Key(0, 0)).views
    np.testing.assert_array_equal(clip, same)
    assert (clip != other).any()
