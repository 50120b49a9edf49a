"""The order of samples: permutations, blocks of them, and batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from maekit.data.order import Key, Order, Stream

SHUFFLES = st.sampled_from(["full", "window", "none"])


@settings(max_examples=80)
@given(st.integers(1, 20000), st.integers(0, 2**63 - 1), SHUFFLES, st.integers(2, 5000))
@example(1, 0, "full", 2)
@example(4096, 0, "full", 2)
@example(4097, 0, "full", 2)
@example(16385, 0, "full", 2)
@example(10, 0, "window", 3)
def test_each_epoch_is_a_permutation(samples: int, seed: int, shuffle: str, window: int) -> None:
    order = Order(samples, seed, shuffle, window)
    for epoch in (0, 7):
        everything = order.block(epoch, 0, samples)
        assert everything.dtype == np.int64
        np.testing.assert_array_equal(np.sort(everything), np.arange(samples))


@settings(max_examples=60)
@given(st.integers(1, 9000), st.data(), SHUFFLES)
def test_a_block_is_a_piece_of_its_epoch(samples: int, data: st.DataObject, shuffle: str) -> None:
    order = Order(samples, 3, shuffle, 700)
    start = data.draw(st.integers(0, samples))
    stop = data.draw(st.integers(start, samples))
    whole = order.block(2, 0, samples)
    np.testing.assert_array_equal(order.block(2, start, stop), whole[start:stop])


def test_a_billion_samples_cost_no_list() -> None:
    block = Order(10**9 + 7, 0).block(5, 10**9 - 1000, 10**9)
    assert len(np.unique(block)) == 1000
    assert block.min() >= 0
    assert block.max() < 10**9 + 7


@pytest.mark.parametrize("samples", [3, 8, 5000])
def test_every_sample_is_as_likely_at_every_place(samples: int) -> None:
    draws = 3000 if samples < 100 else 400
    bins = min(samples, 10)
    counts = np.zeros((bins, bins))
    for epoch in range(draws):
        values = Order(samples, 11).block(epoch, 0, samples)
        places = np.arange(samples) * bins // samples
        np.add.at(counts, (places, values * bins // samples), 1)
    expected = counts.sum() / bins**2
    chi2 = ((counts - expected) ** 2 / expected).sum()
    freedom = (bins - 1) ** 2
    # Within six deviations of what chance brings; fixed seeds, so it never flickers.
    assert chi2 < freedom + 6 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("samples", [4000, 50000])
def test_neighbors_and_epochs_are_unrelated(samples: int) -> None:
    order = Order(samples, 4)
    first, second = (order.block(epoch, 0, samples).astype(float) for epoch in (0, 1))
    for a, b in ((first[:-1], first[1:]), (first, second), (first, np.arange(samples))):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(samples)
    assert (first == second).sum() < 10


def test_all_orders_of_a_small_set_come_up() -> None:
    seen = [tuple(Order(4, 2).block(epoch, 0, 4)) for epoch in range(2400)]
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert counts.min() > 50


def test_windows_keep_neighbors_together_and_move_from_epoch_to_epoch() -> None:
    samples, window = 10_000, 1000
    order = Order(samples, 0, "window", window)
    starts = set()
    for epoch in range(4):
        values = order.block(epoch, 0, samples).reshape(-1, window)
        for row in values:
            ring = np.sort((row - row[0]) % samples)
            spread = samples - np.max(np.diff(np.append(ring, samples)))
            assert spread < window
        starts.add(int(values.min(axis=1)[0]))
        assert (np.diff(values[0]) != 1).mean() > 0.9
    assert len(starts) == 4


def test_what_is_left_over_after_the_windows_is_never_the_same() -> None:
    order = Order(1003, 0, "window", 100)
    last = {tuple(sorted(order.block(epoch, 1000, 1003))) for epoch in range(20)}
    assert len(last) > 15


def test_remainder_is_dropped_and_other_samples_each_epoch() -> None:
    stream = Stream(Order(10, 0), 4)
    assert stream.steps_per_epoch == 2
    keys = [stream.keys(step) for step in range(40)]
    assert all(len(batch) == 4 and batch[0].epoch == step // 2 for step, batch in enumerate(keys))
    assert len({key for batch in keys for key in batch}) == 160
    assert {key.index for batch in keys for key in batch} == set(range(10))


@given(st.integers(1, 40), st.integers(1, 100))
def test_epochs_are_joined_where_a_set_is_smaller_than_a_batch(samples: int, batch: int) -> None:
    stream = Stream(Order(samples, 0), batch)
    keys = [key for step in range(6) for key in stream.keys(step)]
    assert len(keys) == 6 * batch
    if samples < batch:
        assert stream.steps_per_epoch == pytest.approx(samples / batch)
        whole = [Key(e, i) for e in range(6 * batch // samples) for i in range(samples)]
        assert set(whole) <= set(keys)
        assert len(set(keys)) == len(keys)


def test_positions_outside_the_epoch_are_refused() -> None:
    with pytest.raises(ValueError, match="3:11"):
        Order(10, 0).block(0, 3, 11)
    with pytest.raises(ValueError, match="at least one"):
        Order(0, 0)
