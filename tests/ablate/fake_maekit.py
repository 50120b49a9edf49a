"""Stands in for ``maekit``: takes a run's words, and leaves what such a run would, at once.

``FAKE_SECONDS`` is how long a run takes, ``FAKE_SLOW`` a word in the folders of those that take
so long (unset: all), ``FAKE_FAILS`` one in the folders of those that fail.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    verb, folder = words[0], Path(words[words.index("--out") + 1])
    if os.environ.get("FAKE_FAILS", "nothing") in str(folder):
        sys.stderr.write("error: w.pth: these are other weights\n  try: others\n")
        return 3
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return run(verb, folder, words)


def run(verb: str, folder: Path, words: list[str]) -> int:
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "env.json").write_text(
        json.dumps({"verb": verb, "threads": threads(), "device": "cpu"})
    )
    with (folder / "starts").open("a") as file:
        file.write(" ".join(words) + "\n")
    slow = os.environ.get("FAKE_SLOW", "") in str(folder)
    until = time.monotonic() + (float(os.environ.get("FAKE_SECONDS", "0")) if slow else 0.0)
    while time.monotonic() < until and not stopped:
        time.sleep(0.02)
    if stopped:
        (folder / "result.json").write_text(json.dumps({"verb": verb, "exit": 75}))
        return 75
    told = " ".join(word for word in words if not word.startswith("/"))
    own = int(hashlib.sha256(told.encode()).hexdigest(), 16)
    result = {"verb": verb, "exit": 0, "steps": 1, "seconds": own % 100}
    if verb in {"finetune", "probe"}:
        right = [own >> place & 3 != 0 for place in range(40)]
        lines = [
            {
                "row": row,
                "id": f"{row}.png",
                "label": 0,
                "scores": [0.6, 0.4] if hit else [0.4, 0.6],
            }
            for row, hit in enumerate(right)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "predictions.jsonl").write_text(text)
        result["top1"] = sum(right) / len(right)
    (folder / "result.json").write_text(json.dumps(result))
    return 0


def threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
