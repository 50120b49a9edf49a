"""The promises of maskers. Imports no torch, as maskers do not."""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from unittest import mock

import numpy as np

from maekit.contracts import Grid, Masker, PartError, PartOptions
from maekit.testing.apart import in_worker
from maekit.testing.names import check_names
from maekit.testing.options import check_recipe, resolved, unread, watched
from maekit.testing.promises import NotApplicableError, Promises

GRIDS = (Grid(1, 14, 14), Grid(1, 7, 9), Grid(8, 14, 14), Grid(2, 3, 5))
_DRAWS = 12
_PIXELS = 8  # a side of each maskable unit
_DTYPES = ("uint8", "uint16", "float32")
# What makes generators of random numbers.
_PYTHONS = ("Random", "SystemRandom")
_NUMPYS = (
    "default_rng", "Generator", "RandomState", "MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64",
)  # fmt: skip

masker_promises: Promises[MaskerTrial] = Promises()


@dataclass
class MaskerTrial:
    """A masker that is built, anew each time, at several grids."""

    part: type[Masker]
    options: PartOptions
    grids: Sequence[Grid] = GRIDS

    def build(self, options: PartOptions | None = None) -> Masker:
        """Build it as the core does."""
        kind: Any = self.part
        built: Masker = kind(self.options if options is None else options)
        return built

    @cached_property
    def masker(self) -> Masker:
        """One of them, that is used again and again."""
        return self.build()

    @cached_property
    def taken(self) -> tuple[Grid, ...]:
        """The grids that it does not refuse."""
        found = []
        for grid in self.grids:
            try:
                draw(self.build(), grid, 0)
            except PartError:
                continue
            found.append(grid)
        return tuple(found)


def draw(
    masker: Masker, grid: Grid, seed: int, kind: str = "noise", dtype: str = "uint8"
) -> np.ndarray:
    """Draw a mask with a generator of its own, of a picture where the masker looks at one."""
    told = _told(masker, grid, seed, kind, dtype)
    drawn: np.ndarray = masker(grid, np.random.default_rng(seed), **told)
    return drawn


def _told(
    masker: Masker, grid: Grid, seed: int = 0, kind: str = "noise", dtype: str = "uint8"
) -> dict[str, np.ndarray]:
    """Return what the core tells a masker beside the grid and a generator."""
    told: dict[str, np.ndarray] = {}
    if masker.needs_pixels:
        told["pixels"] = picture(grid, kind, dtype, seed)
    if masker.needs_hidden:
        told["hidden"] = _hidden(grid, seed)
    for array in told.values():
        array.flags.writeable = False
    return told


def picture(grid: Grid, kind: str, dtype: str, seed: int = 0) -> np.ndarray:
    """Draw a crop ``[T, H, W, C]``: noise, black, or flat gray."""
    shape = (grid.t, grid.h * _PIXELS, grid.w * _PIXELS, 3)
    share = {"noise": np.random.default_rng(seed).random(shape), "black": 0.0, "flat": 0.5}[kind]
    most = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    return np.broadcast_to(np.asarray(share) * most, shape).astype(dtype)


def _hidden(grid: Grid, seed: int) -> np.ndarray:
    """Draw what is hidden from the encoder: three quarters, at least one unit, not all."""
    count = min(max(1, grid.tokens * 3 // 4), grid.tokens - 1)
    order = np.random.default_rng(seed + 1).permutation(grid.tokens)
    return (order < count).reshape(grid)


@masker_promises()
def options_survive_a_recipe(trial: MaskerTrial) -> None:
    """Options are written into recipes and headers as JSON, and come back the same."""
    check_recipe(trial.options)


@masker_promises()
def is_built_from_options_alone(trial: MaskerTrial) -> None:
    """It is built as ``Class(options)``."""
    assert isinstance(trial.build(), Masker), "does not inherit from maekit.contracts.Masker"


@masker_promises("is_built_from_options_alone")
def members_are_spelled_as_the_contract_spells_them(trial: MaskerTrial) -> None:
    """No attribute looks like a misspelled member, which would never be called."""
    check_names(trial.masker, Masker)


@masker_promises("is_built_from_options_alone")
def takes_a_grid(trial: MaskerTrial) -> None:
    """It takes at least one of the grids; the others it refuses with PartError."""
    if trial.taken:
        return
    try:
        draw(trial.build(), trial.grids[0], 0)
    except PartError as error:
        what = f"refuses all of {', '.join(map(str, trial.grids))}; the first with: {error.what}"
        raise AssertionError(what) from error


@masker_promises("takes_a_grid")
def returns_a_bool_array_of_the_grid(trial: MaskerTrial) -> None:
    """It returns a bool array ``[t, h, w]``."""
    for grid in trial.taken:
        mask: object = draw(trial.masker, grid, 0)
        assert isinstance(mask, np.ndarray), f"returns {type(mask).__name__}, not an array"
        assert mask.dtype == np.bool_, f"dtype {mask.dtype}, not bool"
        assert mask.shape == tuple(grid), f"shape {mask.shape} at a grid of {tuple(grid)}"


@masker_promises("returns_a_bool_array_of_the_grid")
def hides_something_and_not_everything(trial: MaskerTrial) -> None:
    """At some grid it hides a token and leaves one; elsewhere the core refuses it."""
    hidden = {grid: int(draw(trial.masker, grid, 0).sum()) for grid in trial.taken}
    some = any(0 < count < grid.tokens for grid, count in hidden.items())
    said = ", ".join(f"{count} of a grid of {grid}" for grid, count in hidden.items())
    assert some, f"hides {said}"


@masker_promises("returns_a_bool_array_of_the_grid")
def leaves_global_generators_alone(trial: MaskerTrial) -> None:
    """It neither draws from nor reseeds Python's, numpy's or torch's global generator."""
    for grid in trial.taken:
        before = _global_states()
        draw(trial.build(), grid, 0)
        after = _global_states()
        touched = [name for name in after if after[name] != before.get(name, after[name])]
        assert not touched, f"uses the global generator of {touched[0]}, not the one it is given"


def _global_states() -> dict[str, bytes]:
    torch = sys.modules.get("torch")
    states = {
        "Python": pickle.dumps(random.getstate()),
        "numpy": pickle.dumps(np.random.get_state(legacy=False)),  # noqa: NPY002 (watched)
    }
    if torch is not None:
        states["torch"] = torch.get_rng_state().numpy().tobytes()
    return states


@masker_promises("returns_a_bool_array_of_the_grid", "leaves_global_generators_alone")
def the_same_generator_gives_the_same_mask(trial: MaskerTrial) -> None:
    """It is pure: nothing but the grid, the generator and the crop decides."""
    for grid in trial.taken:
        for seed in range(3):
            first, again = draw(trial.masker, grid, seed), draw(trial.build(), grid, seed)
            same = np.array_equal(first, again)
            assert same, f"two masks of a grid of {grid} from one generator differ: not pure"


@masker_promises("the_same_generator_gives_the_same_mask")
def draws_from_its_generator_only(trial: MaskerTrial) -> None:
    """A mask that takes chance takes it from the generator that it is given."""
    with _watching_generators(trial.part) as made:
        masker = trial.build()
    for grid in trial.taken:
        told = _told(masker, grid)
        rngs = [np.random.default_rng(seed) for seed in range(4)]
        with _watching_generators(trial.part) as more:
            first, *others = [masker(grid, rng, **told) for rng in rngs]
        if any(not np.array_equal(first, other) for other in others):
            return
        made |= more
    what = f"makes a generator of its own ({', '.join(sorted(made))})"
    assert not made, f"{what}, and every sample gets one mask"


@contextmanager
def _watching_generators(part: type) -> Iterator[set[str]]:
    """Collect what makes generators, by whichever name the part's own package calls it."""
    made: set[str] = set()
    libraries: list[tuple[Any, Sequence[str]]] = [(random, _PYTHONS), (np.random, _NUMPYS)]
    if (torch := sys.modules.get("torch")) is not None:
        libraries.append((torch, ("Generator",)))
    spies = {
        id(kind): _spied(kind, f"{library.__name__}.{name}", made)
        for library, names in libraries
        for name in names
        for kind in (getattr(library, name),)
    }
    homes = {each.__module__.partition(".")[0] for each in part.__mro__}
    own = [module for name, module in sys.modules.items() if name.partition(".")[0] in homes]
    with ExitStack() as patches:
        for module in (*own, *(library for library, _ in libraries)):
            for name, value in list(vars(module).items()):
                if id(value) in spies:
                    patches.enter_context(mock.patch.object(module, name, spies[id(value)]))
        yield made


def _spied(kind: Any, name: str, made: set[str]) -> Any:  # noqa: ANN401 - a class or a function
    """Return what makes the same, and says so; what is of the class stays of it."""
    if not isinstance(kind, type):

        def spied(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            made.add(name)
            return kind(*args, **kwargs)

        return spied

    class Meta(type(kind)):  # type: ignore[misc]
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            made.add(name)
            return kind(*args, **kwargs)

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, kind)

    return Meta(kind.__name__, (kind,), {})


@masker_promises("returns_a_bool_array_of_the_grid")
def hides_the_same_number_in_every_sample(trial: MaskerTrial) -> None:
    """At one grid every mask hides as many tokens."""
    for grid in trial.taken:
        counts = {int(draw(trial.masker, grid, seed).sum()) for seed in range(_DRAWS)}
        assert len(counts) == 1, f"hides {sorted(counts)} tokens of a grid of {grid}: not constant"


@masker_promises("hides_the_same_number_in_every_sample")
def count_is_what_it_hides(trial: MaskerTrial) -> None:
    """``count`` says how many are True, which is hidden, where it says anything."""
    said = {grid: trial.masker.count(grid) for grid in trial.taken}
    if all(declared is None for declared in said.values()):
        left = "it declares no count: nobody else can tell whether True is what it hides"
        raise NotApplicableError(left)
    for grid, declared in said.items():
        hidden = int(draw(trial.masker, grid, 0).sum())
        what = f"hides {hidden} of a grid of {grid}, but count says {declared}"
        what += ": True is hidden" if declared == grid.tokens - hidden else ""
        assert declared in (None, hidden), what


def _looks(trial: MaskerTrial) -> None:
    if not trial.masker.needs_pixels:
        left = "it does not look at pixels"
        raise NotApplicableError(left)


@masker_promises("hides_the_same_number_in_every_sample")
def takes_black_and_flat_pictures(trial: MaskerTrial) -> None:
    """The first crop is all black, and others may be flat: it hides as many as ever."""
    _looks(trial)
    for grid in trial.taken:
        usual = int(draw(trial.masker, grid, 0).sum())
        for kind in ("black", "flat"):
            hidden = int(draw(trial.masker, grid, 0, kind).sum())
            assert hidden == usual, f"hides {hidden} tokens of a {kind} picture, {usual} of others"


@masker_promises("hides_the_same_number_in_every_sample")
def takes_pixels_of_every_depth(trial: MaskerTrial) -> None:
    """Pixels come as uint8, uint16 or float32, and change what is hidden, not how much."""
    _looks(trial)
    for grid in trial.taken:
        counts = {}
        for dtype in _DTYPES:
            try:
                counts[dtype] = int(draw(trial.masker, grid, 0, dtype=dtype).sum())
            except Exception as error:
                what = f"fails at {dtype} pixels: {type(error).__name__}: {error}"
                raise AssertionError(what) from error
        assert len(set(counts.values())) == 1, f"hides {counts} tokens of one picture"


@masker_promises("takes_a_grid")
def leaves_pixels_as_they_are(trial: MaskerTrial) -> None:
    """It does not write into the crop, which is training data."""
    _looks(trial)
    masker, grid = trial.build(), trial.taken[0]
    crop = picture(grid, "noise", "uint8")
    before = crop.copy()
    masker(grid, np.random.default_rng(0), pixels=crop)
    assert np.array_equal(crop, before), "writes into the pixels that it is given"


@masker_promises("takes_a_grid")
def every_option_is_read(trial: MaskerTrial) -> None:
    """No option is there without being looked at."""
    options, read = watched(trial.options)
    masker = trial.build(options)
    for grid in trial.taken:
        draw(masker, grid, 0)
    dead = unread(trial.part, options, read)
    assert not dead, f"nothing ever reads {', '.join(dead)}"


@masker_promises("the_same_generator_gives_the_same_mask", "options_survive_a_recipe")
def is_the_same_from_a_resolved_recipe(trial: MaskerTrial) -> None:
    """Built from the options that a run folder holds it draws the same masks."""
    for grid in trial.taken:
        again = draw(trial.build(resolved(trial.options)), grid, 1)
        assert np.array_equal(draw(trial.build(), grid, 1), again), "draws other masks"


@masker_promises("is_built_from_options_alone")
def can_be_sent_to_loader_workers(trial: MaskerTrial) -> None:
    """It can be pickled."""
    try:
        pickle.loads(pickle.dumps(trial.build()))  # noqa: S301 (its own bytes)
    except Exception as error:
        what = f"cannot be pickled: {type(error).__name__}: {error}"
        raise AssertionError(what) from error


@masker_promises("the_same_generator_gives_the_same_mask", "can_be_sent_to_loader_workers")
def draws_the_same_in_a_worker_without_torch(trial: MaskerTrial) -> None:
    """In another process it draws the same masks, and imports no torch there."""
    grid = trial.taken[0]
    drawn, heavy = in_worker(draw, trial.build(), grid, 0)
    assert not heavy, f"imports {heavy[0]}, which a loader worker has no room for"
    assert np.array_equal(drawn, draw(trial.build(), grid, 0)), "draws another mask there"
