"""Whether predictions have anything to do with the samples, by exact tests.

The question is not whether an accuracy is above that of always naming the most frequent class: with
38 healthy and 2 ill that is 0.95, and 40 of 40 is better than it by no more than luck explains, yet
nobody finds both of the ill by chance. It is how often predictions that are dealt out to the
samples anew, as many of each kind as there are, are as good as these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from maekit.data.order import evenly
from maekit.data.rng import generator

LEVEL = 0.05  # luck that is called chance
_EXACT = 300  # samples up to which every deal is counted
_DEALS = 999  # for more of them
_JUDGED = 2000  # samples that are dealt, at most: evenly spaced
_OUTPUTS = 64  # labels or values that are measured then, likewise: each costs a sort in every deal
_SCORES_DEALT = 199
_ENOUGH = 20  # deals that are as good: it is luck, and no further one changes that


def matches_by_luck(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the probability that dealt-out predictions match at least as many labels.

    Args:
        predicted: int64 ``[n]``, the classes that were named.
        labels: int64 ``[n]``.
    """
    right = int((predicted == labels).sum())
    if len(labels) <= _EXACT:
        return _tail(predicted, labels, right)
    rng = _rng()
    hits = sum(int((rng.permutation(predicted) == labels).sum()) >= right for _ in range(_DEALS))
    return (hits + 1) / (_DEALS + 1)


def _tail(predicted: np.ndarray, labels: np.ndarray, right: int) -> float:
    """Return the share of all permutations with at least ``right`` matches.

    Of a class with a predictions and b labels, k rooks that do not attack each other stand on its
    a x b squares in C(a, k) C(b, k) k! ways; the classes' polynomials multiply, and inclusion and
    exclusion gives the tail (Riordan, An Introduction to Combinatorial Analysis, 1958, ch. 7).
    """
    if right == 0:
        return 1.0
    count = len(labels)
    rooks = [1]
    for class_ in np.intersect1d(predicted, labels).tolist():
        a, b = int((predicted == class_).sum()), int((labels == class_).sum())
        ways = [math.comb(a, k) * math.perm(b, k) for k in range(min(a, b) + 1)]
        product = [0] * (len(rooks) + len(ways) - 1)
        for first, one in enumerate(rooks):
            for second, other in enumerate(ways):
                product[first + second] += one * other
        rooks = product
    tail = sum(
        (-1) ** (k - right) * math.comb(k - 1, right - 1) * rooks[k] * math.factorial(count - k)
        for k in range(right, len(rooks))
    )
    share: float = tail / math.factorial(count)
    return share


def as_good_by_luck(
    measure: Callable[[np.ndarray, np.ndarray], float | None],
    scores: np.ndarray,
    labels: np.ndarray,
) -> float:
    """Return the probability that scores dealt out to other samples measure as well.

    Of many samples and outputs only some are dealt and measured, which is as exact, and sees less.
    Dealing stops once enough deals were as good, as their share is then the answer (Besag and
    Clifford, Sequential Monte Carlo p-values, Biometrika 1991).

    Args:
        measure: of scores ``[n, K]`` and labels ``[n, K]``; more is better.
        scores: of the samples.
        labels: theirs.
    """
    chosen = evenly(len(labels), _JUDGED)
    varied = np.flatnonzero((labels[chosen] != labels[chosen][:1]).any(axis=0))
    columns = varied[evenly(len(varied), _OUTPUTS)]
    scores, labels = scores[chosen][:, columns], labels[chosen][:, columns]
    reached = measure(scores, labels) if len(columns) else None
    if reached is None:
        return 1.0
    rng, as_good = _rng(), 0
    for deals in range(1, _SCORES_DEALT + 1):
        value = measure(scores, labels[rng.permutation(len(labels))])
        as_good += value is None or value >= reached
        if as_good == _ENOUGH:
            return as_good / deals
    return (as_good + 1) / (_SCORES_DEALT + 1)


def _rng() -> np.random.Generator:
    return generator(0, purpose="chance", epoch=0, index=0, repeat=0)
