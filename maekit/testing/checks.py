"""Check a part's promises, all or some of them.

Torch is imported where a backbone, a decoder or a target is checked, and nowhere before: a masker
or a dataset is checked without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maekit.testing.datasets import DatasetTrial, dataset_promises
from maekit.testing.maskers import GRIDS, MaskerTrial, masker_promises
from maekit.testing.options import options_of
from maekit.testing.promises import Outcome, Promises, Trial, kept, raise_broken

if TYPE_CHECKING:
    from maekit.contracts import (
        Backbone,
        Dataset,
        Decoder,
        Grid,
        Masker,
        PartContext,
        PartOptions,
        Target,
    )


def check_masker(
    part: type[Masker],
    options: PartOptions | Mapping[str, Any] | None = None,
    *,
    grids: Sequence[Grid] = GRIDS,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> tuple[Outcome, ...]:
    """Check shape, purity, counts, and that loader workers can draw with it.

    Args:
        part: the class.
        options: as a recipe gives them; default: none.
        grids: of maskable units; those that it refuses with PartError are left out.
        only: names of the promises that are checked; default: all.
        without: names of those that are not.

    Raises:
        BrokenPromiseError: names every promise that is broken.
    """
    trial = MaskerTrial(part, options_of(part, options), grids)
    return _checked(masker_promises, trial, only, without)


def check_dataset(
    part: type[Dataset],
    options: PartOptions | Mapping[str, Any] | None = None,
    *,
    samples: int = 4,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> tuple[Outcome, ...]:
    """Check names, headers, labels, what is read, and that loader workers can read it.

    Args:
        part: the class.
        options: as a recipe gives them; default: none.
        samples: how many are opened, evenly spaced; all must be readable.
        only: names of the promises that are checked; default: all.
        without: names of those that are not.

    Raises:
        BrokenPromiseError: names every promise that is broken.
    """
    trial = DatasetTrial(part, options_of(part, options), samples)
    return _checked(dataset_promises, trial, only, without)


def check_target(
    part: type[Target],
    options: PartOptions | Mapping[str, Any] | None = None,
    *,
    contexts: Sequence[PartContext] | None = None,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> tuple[Outcome, ...]:
    """Check the truth, its loss, what is kept with the weights, and what is painted.

    Args:
        part: the class.
        options: as a recipe gives them; default: none.
        contexts: what it is built for (see ``example``); default: images and clips of several
            patches. Those that it refuses with PartError are left out.
        only: names of the promises that are checked; default: all.
        without: names of those that are not.

    Raises:
        BrokenPromiseError: names every promise that is broken.
    """
    from maekit.testing.targets import TargetTrial, target_promises

    trial = TargetTrial(part, options_of(part, options), contexts)
    return _checked(target_promises, trial, only, without)


def check_backbone(
    part: type[Backbone],
    options: PartOptions | Mapping[str, Any] | None = None,
    *,
    contexts: Sequence[PartContext] | None = None,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> tuple[Outcome, ...]:
    """Check tokens, blindness to what is hidden, gradients, and the names that fine-tuning needs.

    A backbone that cannot leave tokens out (``keeps_all``) is checked with nothing hidden.

    Args:
        part: the class.
        options: as a recipe gives them; small ones make it quick; default: none.
        contexts: what it is built for (see ``example``); default: images and clips of several
            sizes. Those that it refuses with PartError are left out.
        only: names of the promises that are checked; default: all.
        without: names of those that are not.

    Raises:
        BrokenPromiseError: names every promise that is broken.
    """
    from maekit.testing.backbones import BackboneTrial, backbone_promises

    trial = BackboneTrial(part, options_of(part, options), contexts)
    return _checked(backbone_promises, trial, only, without)


def check_decoder(
    part: type[Decoder],
    options: PartOptions | Mapping[str, Any] | None = None,
    *,
    contexts: Sequence[PartContext] | None = None,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> tuple[Outcome, ...]:
    """Check predictions for queries of all kinds, in their order, and gradients.

    Args:
        part: the class.
        options: as a recipe gives them; small ones make it quick; default: none.
        contexts: what it is built for (see ``example``); default: images and clips, behind encoders
            that return visible tokens or all. Those that it refuses with PartError are left out.
        only: names of the promises that are checked; default: all.
        without: names of those that are not.

    Raises:
        BrokenPromiseError: names every promise that is broken.
    """
    from maekit.testing.decoders import DecoderTrial, decoder_promises

    trial = DecoderTrial(part, options_of(part, options), contexts)
    return _checked(decoder_promises, trial, only, without)


def _checked(
    promises: Promises[Trial],
    trial: Trial,
    only: Collection[str] | None,
    without: Collection[str],
) -> tuple[Outcome, ...]:
    outcomes = kept(promises, trial, only=only, without=without)
    raise_broken(trial.part.__name__, outcomes)
    return tuple(outcomes)
