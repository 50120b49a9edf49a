"""Dataset ``torchvision``: the classification sets that torchvision reads, by their class's name.

Unlike other data sets this one imports torch, and so do the loader's workers that open its samples:
each starts seconds later, and holds its own copy of a set that torchvision keeps in memory (MNIST
and its kin, CIFAR, STL10, SVHN, USPS, SEMEION). A pickled copy carries no pixels.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from maekit.contracts import Dataset, PartOptions, Source, SourceInfo
from maekit.errors import DataError
from maekit.recipe.explain import suggest

if TYPE_CHECKING:
    from PIL import Image

_log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]
Splits = dict[Split, dict[str, Any]]

_WHOLE: Splits = {"train": {}}  # its authors do not split it
_FLAG: Splits = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST: Splits = {"train": {"split": "train"}, "test": {"split": "test"}}
_TRAIN_VAL: Splits = {"train": {"split": "train"}, "val": {"split": "val"}}
_THREE: Splits = {**_TRAIN_VAL, "test": {"split": "test"}}


def _emnist(variant: str) -> Splits:
    return {split: {"split": variant, **extra} for split, extra in _FLAG.items()}


# What each class is called with for a split; the class is the name up to a hyphen.
SETS: dict[str, Splits] = {
    "CIFAR10": _FLAG,
    "CIFAR100": _FLAG,
    "CLEVRClassification": _TRAIN_VAL,  # the labels of its test split are not public
    "Caltech101": _WHOLE,
    "Caltech256": _WHOLE,
    "Country211": {**_TRAIN_TEST, "val": {"split": "valid"}},
    "DTD": _THREE,
    "EMNIST-balanced": _emnist("balanced"),
    "EMNIST-byclass": _emnist("byclass"),
    "EMNIST-bymerge": _emnist("bymerge"),
    "EMNIST-digits": _emnist("digits"),
    "EMNIST-letters": _emnist("letters"),
    "EMNIST-mnist": _emnist("mnist"),
    "EuroSAT": _WHOLE,
    "FER2013": _TRAIN_TEST,
    "FGVCAircraft": _THREE,
    "FashionMNIST": _FLAG,
    "Flowers102": _THREE,
    "Food101": _TRAIN_TEST,
    "GTSRB": _TRAIN_TEST,
    "INaturalist": {"train": {"version": "2021_train"}, "val": {"version": "2021_valid"}},
    "ImageNet": _TRAIN_VAL,
    "Imagenette": _TRAIN_VAL,
    "KMNIST": _FLAG,
    "LFWPeople": _TRAIN_TEST,
    "MNIST": _FLAG,
    "Omniglot": {"train": {"background": True}, "test": {"background": False}},
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    "PCAM": _THREE,
    "Places365": {"train": {"split": "train-standard"}, "val": {"split": "val"}},
    "QMNIST": _FLAG,
    "RenderedSST2": _THREE,
    "SEMEION": _WHOLE,
    "STL10": _TRAIN_TEST,
    "STL10-unlabeled": {"train": {"split": "train+unlabeled"}},
    "SUN397": _WHOLE,
    "SVHN": _TRAIN_TEST,
    "StanfordCars": _TRAIN_TEST,
    "USPS": _FLAG,
}
# Where torchvision keeps the names of the labels; and how many there are where it keeps none.
_NAMES = ("classes", "categories", "all_categories", "_characters", "class_to_idx")
_COUNTS = {
    "CLEVRClassification": 11, "FER2013": 7, "GTSRB": 43, "PCAM": 2, "SEMEION": 10, "SVHN": 10,
    "USPS": 10,
}  # fmt: skip


class TorchvisionSets(Dataset):
    """A split of one of torchvision's classification sets.

    Raises:
        DataError: its files are not there, are damaged, or cannot be downloaded.
    """

    class Options(PartOptions):
        """Options of ``torchvision``."""

        set: str = Field(
            description="a class of torchvision.datasets, as CIFAR10",
            json_schema_extra={"enum": list(SETS)},
        )
        split: Split = Field("train", description="train, val or test, as the set's authors cut it")
        root: Path = Field(description="the folder that holds the set, in torchvision's layout")
        download: bool = Field(False, description="fetch what is missing in root")

        @field_validator("set")
        @classmethod
        def _is_a_set(cls, name: str) -> str:
            if name not in SETS:
                near = suggest(name, SETS) or f"known: {', '.join(SETS)}"
                raise ValueError(f"torchvision has no classification set '{name}'; {near}")
            return name

        @model_validator(mode="after")
        def _has_split(self) -> TorchvisionSets.Options:
            if self.split not in SETS[self.set]:
                known = ", ".join(SETS[self.set])
                raise ValueError(f"split '{self.split}' is not one of {self.set}'s: {known}")
            return self

    def __init__(self, options: Options) -> None:
        self._options = options
        self._set: Any = _fetched(options) if options.download else _opened(options)
        self._length = len(self._set)
        self.classes = _classes(self._set, options.set)

    def __getstate__(self) -> dict[str, object]:
        # A worker opens the files itself: pixels in memory are not sent to each.
        return self.__dict__ | {"_set": None}

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        """Return the sample's place in its set: most sets have no file for each."""
        return f"{self._options.set}/{self._options.split}/{index}"

    def open(self, index: int) -> Source:
        """Decode a sample.

        Raises:
            DataError: it cannot be read.
        """
        if not 0 <= index < self._length:
            msg = f"sample {index} of {self._length}"
            raise IndexError(msg)
        if self._set is None:
            self._set = _opened(self._options)
        try:
            image, label = self._set[index]
            pixels = _pixels(image)
        except Exception as error:  # broken files make decoders raise anything at all
            msg = f"cannot be read: {type(error).__name__}: {error}"
            raise DataError(msg, where=self.name(index)) from error
        # Unlabeled samples have None or -1.
        known = None if label is None or label < 0 else int(label)
        height, width, channels = pixels.shape
        info = SourceInfo(self.name(index), height, width, channels, pixels.dtype.name, label=known)
        return Source(info, lambda ids: np.broadcast_to(pixels, (len(ids), *pixels.shape)))


def _pixels(image: Image.Image) -> np.ndarray:
    """Return ``[H, W, C]`` uint8 of a picture in any of Pillow's modes: gray stays gray."""
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _classes(opened: Any, name: str) -> tuple[str, ...] | None:  # noqa: ANN401 - torchvision's
    """Return the names of the labels; numbers where torchvision has no names."""
    if name == "STL10-unlabeled":
        return None
    for attribute in _NAMES:
        names = getattr(opened, attribute, None)
        if names:  # ImageNet's are tuples of synonyms
            return tuple(each if isinstance(each, str) else ", ".join(each) for each in names)
    return tuple(map(str, range(_COUNTS[name]))) if name in _COUNTS else None


def _kind(name: str) -> Any:  # noqa: ANN401 - torchvision has no types
    """Return torchvision's class."""
    from torchvision import datasets

    return getattr(datasets, name.partition("-")[0])


def _opened(options: TorchvisionSets.Options, *, download: bool = False) -> Any:  # noqa: ANN401
    """Build torchvision's object.

    Raises:
        DataError: files, or a package to read them, are missing.
    """
    kind = _kind(options.set)
    settings = dict(SETS[options.set][options.split])
    # Some classes do not know the word; those of MNIST's kin hand it on unseen.
    if download or "download" in inspect.signature(kind).parameters or "MNIST" in options.set:
        settings["download"] = download
    root = options.root.expanduser()
    try:
        return kind(root=str(root), **settings)
    except Exception as error:  # damaged files make their readers raise anything at all
        what = f"{options.set} cannot be {'fetched' if download else 'opened'}: " + (
            str(error) or type(error).__name__
        )
        hint = f"put its files into {root}, or set download: true"
        if download:
            hint = f"see that the network reaches its source, or put the files into {root} yourself"
        if _needs_package(error):
            hint = "install the package that torchvision reads this set with"
        raise DataError(what, where=str(root), hint=hint) from error


def _needs_package(error: BaseException | None) -> bool:
    """Return whether torchvision lacks h5py or SciPy.

    It reports that in more than one way.
    """
    return error is not None and any(
        isinstance(each, ImportError) for each in (error, error.__context__)
    )


def _fetched(options: TorchvisionSets.Options) -> Any:  # noqa: ANN401
    """Build as ``_opened`` does, and download what is missing, which is announced before."""
    try:
        return _opened(options)
    except DataError as missing:
        if _needs_package(missing.__cause__):
            raise
    addresses = sorted(set(_addresses(vars(_kind(options.set)).values())))
    source = ", ".join(addresses[:3]) or "the address that torchvision knows"
    _log.warning("downloading %s from %s into %s", options.set, source, options.root)
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
        return _opened(options, download=True)


def _addresses(values: object) -> Iterator[str]:
    """Yield the addresses among a class's attributes, however deep in lists and mappings."""
    if isinstance(values, str):
        if values.startswith(("http://", "https://")):
            yield values
    elif isinstance(values, dict):
        yield from _addresses(values.values())
    elif isinstance(values, (list, tuple, type({}.values()))):
        for value in values:
            yield from _addresses(value)
