"""The main loop of a loader worker: take keys, read samples, leave them in slots.

Imports nothing heavier than the standard library at the top: a worker first sets how many threads
numpy may start, and only then imports it. It never imports torch.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import threading
import traceback
from multiprocessing import parent_process
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

from maekit.stop import WATCHED

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from maekit.data.memory import Memory
    from maekit.data.reader import SampleReader
    from maekit.data.shared_memory import SharedSlots

TASK = struct.Struct("=qqq")  # slot, epoch, index
RESULT = struct.Struct("=qq")  # kind, dtype; then a pickle: Told, bad file or failure
READY, READ, BAD, FATAL = range(4)

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def main(tasks: Connection, results: Connection, payload: bytes, memory: Memory) -> None:
    """Serve until the other end of ``tasks`` closes.

    Args:
        tasks: any number of TASK at a time.
        results: one RESULT for each task, in their order.
        payload: pickled (reader, layout and count of the slots).
        memory: of the slots.
    """
    # Signals go to the whole process group; what they mean, the main process decides.
    for name in WATCHED:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        from maekit.data.shared_memory import SharedSlots

        reader, layout, count = pickle.loads(payload)  # noqa: S301 - from our own parent
        slots = SharedSlots(layout, count, memory)
        reader.prepare()
    except Exception:  # noqa: BLE001 - whatever a part raises on import goes to the parent
        results.send_bytes(RESULT.pack(FATAL, 0) + pickle.dumps(traceback.format_exc()))
        return
    try:
        results.send_bytes(RESULT.pack(READY, 0))
        while True:
            for slot, epoch, index in TASK.iter_unpack(tasks.recv_bytes()):
                results.send_bytes(_serve(reader, slots, slot, epoch, index))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the loader is closed
    finally:
        slots.close()


def _serve(reader: SampleReader, slots: SharedSlots, slot: int, epoch: int, index: int) -> bytes:
    from maekit.data.order import Key
    from maekit.data.shared_memory import Told
    from maekit.errors import MaekitError, PartError

    try:
        sample = reader.read(Key(epoch, index), slots.room(slot))
        dtype = slots.write(slot, sample)
    except MaekitError as error:
        return RESULT.pack(FATAL, 0) + pickle.dumps(error)
    except Exception as error:  # noqa: BLE001 - a bug of ours: ends the run, not the worker
        what = f"a loader worker failed: {type(error).__name__}: {error}\n{traceback.format_exc()}"
        return RESULT.pack(FATAL, 0) + pickle.dumps(PartError(what))
    if sample.bad:
        return RESULT.pack(BAD, dtype) + pickle.dumps(sample.bad)
    return RESULT.pack(READ, dtype) + pickle.dumps(Told.of(sample))


def _die_with_parent() -> None:
    """Leave at once when the main process is gone, also from within a read that hangs."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
