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
    deals: int = 199,
) -> float:
    """Return the probability that scores dealt out to other samples measure as well.

    Args:
        measure: of scores ``[n, K]`` and labels ``[n, K]``; more is better.
        scores: of the samples.
        labels: theirs.
        deals: how often they are dealt.
    """
    chosen = evenly(len(labels), _JUDGED)
    scores, labels = scores[chosen], labels[chosen]
    reached = measure(scores, labels)
    if reached is None:
        return 1.0
    rng = _rng()
    dealt = (measure(scores, labels[rng.permutation(len(labels))]) for _ in range(deals))
    return (sum(value is None or value >= reached for value in dealt) + 1) / (deals + 1)


def _rng() -> np.random.Generator:
    return generator(0, purpose="chance", epoch=0, index=0, repeat=0)
