"""Batches, read ahead by workers or inline; the same bit for bit either way."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Self

from maekit.data.batch import BatchBuilder
from maekit.data.pool import Pool
from maekit.data.shared_memory import affordable
from maekit.stop import check

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

    from maekit.data.batch import Batch
    from maekit.data.order import Key
    from maekit.data.reader import SampleReader

_LEAST_SLOTS = 2  # for each worker: one to write, one to read


class Loader:
    """Iterable of batches, one for each sequence of keys, in their order.

    Args:
        reader: reads one sample.
        batches: the keys of each batch; taken ``prefetch`` batches ahead. Where it can be iterated
            again, so can the loader, with the same workers.
        workers: processes; 0 reads in this one (where nothing watches the time a sample takes).
        timeout: seconds that one sample may take.
        prefetch: batches read ahead of the current one.

    Use it in a ``with`` statement: leaving it ends the workers.
    """

    def __init__(
        self,
        reader: SampleReader,
        batches: Iterable[Sequence[Key]],
        *,
        workers: int,
        timeout: float,
        prefetch: int = 2,
    ) -> None:
        self.wait_seconds = 0.0  # that the consumer spent waiting for a batch
        self._reader = reader
        self._batches = batches
        self._workers = workers
        self._timeout = timeout
        self._prefetch = max(1, prefetch)
        self._pool: Pool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches.

        Raises:
            Interrupted: a signal stopped the run.
            PartError: a part does not keep its contract, or cannot be sent to workers.
            RankError: workers die while starting.
            StorageError: not enough shared memory.
        """
        return self._from_pool() if self._workers else self._inline()

    def close(self) -> None:
        """Stop the workers; the loader can be iterated again, with new ones."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _inline(self) -> Iterator[Batch]:
        for keys in self._batches:
            start = time.monotonic()
            builder = BatchBuilder(self._reader.layout, keys)
            for place, key in enumerate(keys):
                check()
                builder.put(place, self._reader.read(key))
            self.wait_seconds += time.monotonic() - start
            yield builder.finish()

    def _from_pool(self) -> Iterator[Batch]:
        batches = iter(self._batches)
        ahead: deque[BatchBuilder] = deque()
        pool: Pool | None = None
        try:
            while True:
                start = time.monotonic()
                while len(ahead) <= self._prefetch and (keys := next(batches, None)) is not None:
                    pool = pool or self._started(len(keys))
                    ahead.append(_submitted(pool, BatchBuilder(self._reader.layout, keys)))
                if not ahead or pool is None:
                    return
                pool.collect(block=False)
                while ahead[0].missing:
                    check()
                    pool.collect(block=True)
                self.wait_seconds += time.monotonic() - start
                yield ahead.popleft().finish()
        finally:
            if pool is not None:
                pool.forget()

    def _started(self, batch: int) -> Pool:
        """Return the pool; start one with room for the batches read ahead where there is none."""
        if self._pool is None:
            least = _LEAST_SLOTS * self._workers
            slots = affordable(self._reader.layout, max(least, self._prefetch * batch), least)
            self._pool = Pool(
                self._reader, workers=self._workers, slots=slots, timeout=self._timeout
            )
        return self._pool


def _submitted(pool: Pool, builder: BatchBuilder) -> BatchBuilder:
    for place, key in enumerate(builder.keys):
        pool.submit(key, place, builder)
    return builder
