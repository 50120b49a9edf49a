"""Maskers with one fault each, by the promise that they break; and maskers without."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator
from pydantic import ConfigDict, Field

from maekit.contracts import Grid, Masker, PartError, PartOptions


class Honest(Masker):
    """Three quarters, drawn anew."""

    class Options(PartOptions):
        ratio: float = Field(0.75, gt=0, lt=1, description="share that is hidden")

    def __init__(self, options: Any) -> None:
        self.options = options

    def hidden(self, grid: Grid) -> int:
        return min(max(1, int(self.options.ratio * grid.tokens)), grid.tokens - 1)

    def count(self, grid: Grid) -> int | None:
        return self.hidden(grid)

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return (rng.permutation(grid.tokens) < self.hidden(grid)).reshape(grid)


class UnequalCounts(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return rng.random(grid) < self.options.ratio


class NumpysGlobal(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return (np.random.permutation(grid.tokens) < self.hidden(grid)).reshape(grid)  # noqa: NPY002


class PythonsGlobal(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        order = list(range(grid.tokens))
        random.shuffle(order)
        return (np.array(order) < self.hidden(grid)).reshape(grid)


class TorchsGlobal(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        import torch

        return (torch.randperm(grid.tokens).numpy() < self.hidden(grid)).reshape(grid)


class ReseedsNumpy(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        np.random.seed(0)  # noqa: NPY002
        return super().__call__(grid, rng)


class ReseedsPython(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        random.seed(0)
        return super().__call__(grid, rng)


class ReseedsTorch(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        import torch

        torch.manual_seed(0)
        return super().__call__(grid, rng)


class WrongShape(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return super().__call__(grid, rng).reshape(-1)


class WrongDtype(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return super().__call__(grid, rng).astype(np.uint8)


class AList(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return super().__call__(grid, rng).tolist()


class WrongPolarity(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return ~super().__call__(grid, rng)


class HidesAll(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return np.ones(grid, dtype=np.bool_)


class HidesNothing(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return np.zeros(grid, dtype=np.bool_)


class CountLies(Honest):
    def count(self, grid: Grid) -> int:
        return self.hidden(grid) + 1


class SameForAll(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return super().__call__(grid, np.random.default_rng(0))


class PythonsOwn(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        order = list(range(grid.tokens))
        random.Random(0).shuffle(order)
        return (np.array(order) < self.hidden(grid)).reshape(grid)


class NumpysOwn(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return super().__call__(grid, Generator(PCG64(0)))


class NumpysOldOwn(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        order = np.random.RandomState(0).permutation(grid.tokens)
        return (order < self.hidden(grid)).reshape(grid)


class TorchsOwn(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        import torch

        order = torch.randperm(grid.tokens, generator=torch.Generator().manual_seed(0))
        return (order.numpy() < self.hidden(grid)).reshape(grid)


class OwnBesideTheGiven(Honest):
    """Draws from what it is given, and does not use it."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        rng.random()
        return super().__call__(grid, np.random.default_rng(0))


class MadeWithIt(Honest):
    """Draws all masks from a seed of its own, kept since it was built."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.keys = np.random.default_rng(0).random(1 << 12)

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        order = np.argsort(np.argsort(self.keys[: grid.tokens]))
        return (order < self.hidden(grid)).reshape(grid)


class RemembersItsFirst(Honest):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.kept: dict[Grid, Any] = {}

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return self.kept.setdefault(grid, super().__call__(grid, rng))


class OwnUnseeded(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return super().__call__(grid, np.random.default_rng())


class Looks(Honest):
    """Hides what is brightest."""

    needs_pixels = True

    def __call__(self, grid: Grid, rng: np.random.Generator, pixels: Any) -> Any:
        t, height, width, _ = pixels.shape
        light = pixels.astype(np.float64).mean(-1)
        light = light.reshape(t, grid.h, height // grid.h, grid.w, width // grid.w).mean((2, 4))
        light = light + rng.random(light.shape) * 1e-9 * (np.ptp(light) + 1)
        order = np.argsort(np.argsort(light.reshape(-1)))
        return (order >= grid.tokens - self.hidden(grid)).reshape(grid)


class CountByPixels(Looks):
    def __call__(self, grid: Grid, rng: np.random.Generator, pixels: Any) -> Any:
        lit = super().__call__(grid, rng, pixels)
        return lit if pixels.max() > 0 else ~lit & (np.arange(grid.tokens).reshape(grid) < 1)


class CountByNoise(Looks):
    def __call__(self, grid: Grid, rng: np.random.Generator, pixels: Any) -> Any:
        lit = super().__call__(grid, rng, pixels)
        lit.reshape(-1)[: int(pixels.reshape(-1)[0]) % 3 + 1] = True
        return lit


class OnlyUint8(Looks):
    def __call__(self, grid: Grid, rng: np.random.Generator, pixels: Any) -> Any:
        table = np.arange(256)
        return super().__call__(grid, rng, table[pixels])


class DividesByDeviation(Looks):
    def __call__(self, grid: Grid, rng: np.random.Generator, pixels: Any) -> Any:
        if pixels.std() == 0:
            raise ZeroDivisionError("flat")
        return super().__call__(grid, rng, pixels)


class WritesIntoPixels(Looks):
    def __call__(self, grid: Grid, rng: np.random.Generator, pixels: Any) -> Any:
        lit = super().__call__(grid, rng, pixels)
        if pixels.flags.writeable:
            pixels[:] = 0
        return lit


class ImportsTorch(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        import torch  # noqa: F401

        return super().__call__(grid, rng)


class DeadOption(Honest):
    class Options(Honest.Options):
        unread: float = Field(0.5, description="read by nobody")


class NotSerializable(Honest):
    class Options(Honest.Options):
        model_config = ConfigDict(arbitrary_types_allowed=True)

        table: np.ndarray = Field(
            default_factory=lambda: np.zeros(3), description="no JSON holds it"
        )

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.table = options.table


class OptionsChange(Honest):
    class Options(Honest.Options):
        chosen: Any = Field((1, 2), description="a tuple comes back as a list")

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.chosen = options.chosen


class NotPicklable(Honest):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.twist: Callable[[Any], Any] = lambda mask: mask


class HashOrdered(Honest):
    """Depends on the process: Python hashes strings with a seed of its own."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        mask = super().__call__(grid, rng)
        return np.roll(mask.reshape(-1), hash("my seed") % 97 + 1).reshape(grid)


class RefusesAll(Honest):
    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        raise PartError("no")


class Misspelled(Honest):
    need_pixels = True


class NeedsAnArgument(Honest):
    def __init__(self, options: Any, context: Any, more: Any) -> None:
        super().__init__(options)


class ParityOfCalls(Honest):
    """Alternates, so that a mask depends on how many were drawn before."""

    calls = 0

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        self.calls += 1
        mask = super().__call__(grid, rng)
        return mask if self.calls % 2 else mask[..., ::-1]


# Faults of §5, by the promise that each breaks.
REVIEWED: dict[type[Masker], str] = {
    UnequalCounts: "hides_the_same_number_in_every_sample",
    NumpysGlobal: "leaves_global_generators_alone",
    PythonsGlobal: "leaves_global_generators_alone",
    TorchsGlobal: "leaves_global_generators_alone",
    ReseedsNumpy: "leaves_global_generators_alone",
    ReseedsTorch: "leaves_global_generators_alone",
    WrongShape: "returns_a_bool_array_of_the_grid",
    WrongDtype: "returns_a_bool_array_of_the_grid",
    AList: "returns_a_bool_array_of_the_grid",
    WrongPolarity: "count_is_what_it_hides",
    HidesAll: "hides_something_and_not_everything",
    CountLies: "count_is_what_it_hides",
    SameForAll: "draws_from_its_generator_only",
    CountByPixels: "takes_black_and_flat_pictures",
    OnlyUint8: "takes_pixels_of_every_depth",
    WritesIntoPixels: "leaves_pixels_as_they_are",
    ImportsTorch: "draws_the_same_in_a_worker_without_torch",
    DeadOption: "every_option_is_read",
    NotSerializable: "options_survive_a_recipe",
    NotPicklable: "can_be_sent_to_loader_workers",
}
MORE: dict[type[Masker], str] = {
    ReseedsPython: "leaves_global_generators_alone",
    HidesNothing: "hides_something_and_not_everything",
    PythonsOwn: "draws_from_its_generator_only",
    NumpysOwn: "draws_from_its_generator_only",
    NumpysOldOwn: "draws_from_its_generator_only",
    TorchsOwn: "draws_from_its_generator_only",
    OwnBesideTheGiven: "draws_from_its_generator_only",
    MadeWithIt: "draws_from_its_generator_only",
    RemembersItsFirst: "the_same_generator_gives_the_same_mask",
    OwnUnseeded: "the_same_generator_gives_the_same_mask",
    ParityOfCalls: "the_same_generator_gives_the_same_mask",
    CountByNoise: "hides_the_same_number_in_every_sample",
    DividesByDeviation: "takes_black_and_flat_pictures",
    OptionsChange: "options_survive_a_recipe",
    HashOrdered: "draws_the_same_in_a_worker_without_torch",
    RefusesAll: "takes_a_grid",
    Misspelled: "members_are_spelled_as_the_contract_spells_them",
    NeedsAnArgument: "is_built_from_options_alone",
}


class Rows(Honest):
    """Correct: a decided pattern, without chance."""

    class Options(PartOptions):
        ratio: float = Field(2.0, gt=1, description="width over height of what nobody hides")

    def hidden(self, grid: Grid) -> int:
        return -(-grid.h // 2) * grid.w * grid.t

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        if grid.h < self.options.ratio:
            raise PartError("one row cannot be split", hint="a larger data.size")
        mask = np.zeros(grid, dtype=np.bool_)
        mask[:, ::2] = True
        return mask


class Derived(Honest):
    """Correct: a generator of its own, that comes from the one that it is given."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        return super().__call__(grid, np.random.default_rng(rng.integers(1 << 32)))


class Spawned(Honest):
    """Correct: a generator that the given one has spawned, and knows its class by name."""

    def __call__(self, grid: Grid, rng: np.random.Generator) -> Any:
        if not isinstance(rng, np.random.Generator) or not isinstance(rng, Generator):
            raise TypeError(type(rng))
        (own,) = rng.bit_generator.seed_seq.spawn(1)  # type: ignore[attr-defined]
        return super().__call__(grid, np.random.default_rng(own))


class ByRatio(Honest):
    """Correct: its ratio is the share that is seen, and it declares no count."""

    class Options(PartOptions):
        ratio: float = Field(0.25, gt=0, lt=1, description="share that is seen")

    def hidden(self, grid: Grid) -> int:
        return grid.tokens - super().hidden(grid)

    def count(self, grid: Grid) -> None:
        return None


class Among(Honest):
    """Correct: predicts a quarter of what is hidden from the encoder."""

    needs_hidden = True

    def count(self, grid: Grid) -> None:
        return None

    def __call__(self, grid: Grid, rng: np.random.Generator, hidden: Any) -> Any:
        found = np.flatnonzero(hidden)
        mask = np.zeros(grid.tokens, dtype=np.bool_)
        mask[rng.permutation(found)[: max(1, int(self.options.ratio * len(found)))]] = True
        return mask.reshape(grid)


CORRECT = (Honest, Looks, Rows, Derived, Spawned, ByRatio, Among)
