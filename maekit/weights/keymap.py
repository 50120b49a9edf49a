"""Key maps between maekit's names and others', as data: one table reads and writes.

A rule says which tensors of theirs make which of ours. ``{i}`` stands for a block's number. Three
of theirs are the query, key and value parts of one fused tensor, in this order, joined along their
first dimension; ``frame`` marks the weight of a convolution over pictures, ``[D, C, h, w]``, which
is ``[D, C, 1, h, w]`` here. ``{n}`` stands for the number behind the last block's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from maekit.errors import WeightsError

DEEPEST = 1000  # blocks: a number beyond is not a block, and its keys are named as unexpected
WEIGHT_AND_BIAS = ("weight", "bias")


@dataclass(frozen=True)
class Rule:
    """One tensor of ours and what it is made of."""

    ours: str
    theirs: tuple[str, ...]
    frame: bool = False

    def numbered(self, index: int) -> Rule:
        """Return the rule of block ``index``."""
        number = str(index)
        return replace(
            self,
            ours=self.ours.replace("{i}", number),
            theirs=tuple(name.replace("{i}", number) for name in self.theirs),
        )


@dataclass(frozen=True)
class KeyMap:
    """Rules of one spelling of one format."""

    encoder: tuple[Rule, ...]
    decoder: tuple[Rule, ...] = ()
    head: tuple[Rule, ...] = ()  # of a classifier: what fine-tuning or a probe put on the encoder

    def respelled(self, spell: Callable[[str], str]) -> KeyMap:
        """Return the map with other names on their side."""

        def respelled(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
            return tuple(replace(r, theirs=tuple(map(spell, r.theirs))) for r in rules)

        return KeyMap(*map(respelled, (self.encoder, self.decoder, self.head)))

    def rules(self, keys: Collection[str]) -> list[Rule]:
        """Return the rules of a whole file with these keys.

        It has as many blocks as the highest number says.
        """
        rules = list(_numbered(self.encoder, _depth(self.encoder, keys)))
        decoder = list(_numbered(self.decoder, _depth(self.decoder, keys)))
        if any(name in keys for rule in decoder for name in rule.theirs):
            rules += decoder
        return [*rules, *self.head]

    def rules_for(self, depth: int, decoder_depth: int | None) -> list[Rule]:
        """Return the rules of a model of this depth; ``None`` stands for no decoder."""
        rules = list(_numbered(self.encoder, depth))
        if decoder_depth is not None:
            rules += _numbered(self.decoder, decoder_depth)
        return [*rules, *self.head]


def _numbered(rules: Iterable[Rule], depth: int) -> Iterator[Rule]:
    for rule in rules:
        if "{i}" in rule.ours:
            yield from (rule.numbered(index) for index in range(depth))
        else:
            yield replace(
                rule, theirs=tuple(name.replace("{n}", str(depth)) for name in rule.theirs)
            )


def _depth(rules: Iterable[Rule], keys: Iterable[str]) -> int:
    """Count blocks up to the last of which most is there: one stray key makes no block."""
    names = [name for rule in rules for name in rule.theirs if "{i}" in name]
    if not names:
        return 0
    starts = sorted({name.partition("{i}")[0] for name in names})
    block = re.compile("(?:" + "|".join(map(re.escape, starts)) + r")(\d+)\.")
    held = Counter(int(match[1]) for match in map(block.match, keys) if match)
    whole = (index for index, n in held.items() if 2 * n > len(names) and index < DEEPEST)
    return 1 + max(whole, default=-1)


def to_ours(rules: Iterable[Rule], tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Rename their tensors to our names; a rule that lacks one of its tensors gives nothing.

    Raises:
        WeightsError: a tensor cannot be what its name says.
    """
    found = {}
    for rule in rules:
        if not all(name in tensors for name in rule.theirs):
            continue
        parts = [tensors[name] for name in rule.theirs]
        if len(parts) > 1 and len({part.shape for part in parts}) > 1:
            shapes = ", ".join(f"{name} {list(tensors[name].shape)}" for name in rule.theirs)
            raise WeightsError(f"query, key and value differ in shape: {shapes}", where=where)
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        if rule.frame:
            if whole.ndim != 4:
                msg = (
                    f"{rule.theirs[0]} is {list(whole.shape)}, expected a convolution over pictures"
                )
                raise WeightsError(msg, where=where, hint="is it a video model of another kind?")
            whole = whole.unsqueeze(2)
        found[rule.ours] = whole
    return found


def to_theirs(rules: Iterable[Rule], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our tensors to their names: the inverse of ``to_ours``, bit for bit."""
    found = {}
    for rule in rules:
        whole = tensors[rule.ours]
        if rule.frame:
            whole = whole.squeeze(2)
        parts = (whole,) if len(rule.theirs) == 1 else whole.chunk(len(rule.theirs))
        for name, part in zip(rule.theirs, parts, strict=True):
            found[name] = part.contiguous()
    return found


def same(ours: str, theirs: str, kinds: Iterable[str] = WEIGHT_AND_BIAS) -> list[Rule]:
    """Return the rules of a layer whose weight and bias go over as they are."""
    return [Rule(f"{ours}.{kind}", (f"{theirs}.{kind}",)) for kind in kinds]


def block(
    ours: str,
    theirs: Mapping[Literal["norm1", "proj", "norm2", "fc1", "fc2"], str],
    attention: Iterable[Rule],
) -> tuple[Rule, ...]:
    """Return the rules of a transformer block; those of its fused attention are given."""
    layers = {"norm1": "norm1", "attn.proj": "proj", "norm2": "norm2"}
    layers |= {"mlp.fc1": "fc1", "mlp.fc2": "fc2"}
    rules = list(attention)
    for name, key in layers.items():
        rules += same(f"{ours}.{name}", theirs[key])  # type: ignore[index]
    return tuple(rules)
