"""Lists of pictures and of videos, damaged."""

from __future__ import annotations

import json
import random
from pathlib import Path

from fuzz import ODD, damaged, odd_record

from maekit.datasets.images import Images
from maekit.datasets.videos import Videos

ROWS = [{"path": f"{name} {n}.jpg", "label": n} for n, name in enumerate(("a", "b,c", "d;e"))]
VIDEOS = [{"path": f"{n}.mp4", "label": "x", "start": n, "end": n + 1.5} for n in range(3)]
TEXTS = (
    b'path,label\n1.jpg,cat\n"2,3.jpg",dog\n',
    b"path;label;start;end\n1.mp4;0;0;1\n2.mp4;1;;3.5\n",
    b"a b.jpg 1\nc.jpg 2\n",
    b"v.mp4 0 -1\nw.mp4 1 30\n",
    b"frames/1 300 5\nframes/2 200 6\n",
    b"path\tlabel\na.jpg\tx y\n",
)


def case(rng: random.Random, folder: Path) -> None:
    """Read a list as either data set, and open its first sample."""
    path = folder / "list"
    if rng.random() < 0.3:
        lines = [json.dumps(odd_record(rng, row)) for row in rng.choice((ROWS, VIDEOS))]
        text = "\n".join(lines).encode()
    else:
        text = rng.choice(TEXTS)
    if rng.random() < 0.05:
        text = rng.choice(ODD) * 300 + text
    path.write_bytes(damaged(rng, text) if rng.random() < 0.9 else text)
    kind = rng.choice((Images, Videos))
    found = kind(kind.Options(path=path))
    found.name(0)
    found.open(0)
