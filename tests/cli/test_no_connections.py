"""No verb opens a connection that nobody asked for: heard by Python's audit, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_recipes import IMAGES, draw_sides, sets, write_recipe

pytestmark = pytest.mark.slow  # seven commands in a process of their own

# Python imports it in each process that starts, loader workers included.
HEARING = """
import os, sys
WATCHED = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname",
           "socket.sendto", "socket.sendmsg", "urllib.Request"}

def heard(event, args):
    if event not in WATCHED:
        return
    where = args[-1]
    if event.startswith("socket.") and isinstance(where, (str, bytes)) and event[7:] in (
        "connect", "bind", "sendto", "sendmsg"
    ):
        return  # a path: processes of one machine
    if event == "socket.sendmsg" and where is None:
        return  # along a connection that was made before
    with open(os.environ["HEARD"], "a") as file:
        file.write(f"{event} {args[1:]!r} by {sys.argv[:1]}\\n")

sys.addaudithook(heard)
with open(os.environ["HEARD"], "a") as file:
    file.write("")
with open(os.environ["HEARD"] + ".processes", "a") as file:
    file.write("x")
"""
CALLS = """
import sys
from maekit.cli.app import main
for words in {calls}:
    try:
        main(words)
    except SystemExit as ended:
        print("ENDED", words[0], ended.code)
"""
CALLED = (
    "pretrain own.yaml --out pre -q",
    "finetune own.yaml --from pre --out tuned -q",
    "probe own.yaml --kind knn --from pre --out knn -q",
    "predict pictures/val --from tuned -q",
    "evaluate tuned --out judged -q",
    "embed pictures/val --from pre --out e.npz -q",
    "reconstruct pictures/val --from pre --out drawn -q",
    "report tuned --out page.html",
    "weights convert tuned model.pt2 --to export",
)


def heard(folder: Path, code: str) -> tuple[str, list[str], int]:
    """Run Python; return what it printed, what was heard, and how many processes listened."""
    site, log = folder / "site", folder / "heard.txt"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(HEARING)
    for path in folder.glob("heard.txt*"):
        path.unlink()
    root = str(Path(__file__).resolve().parents[2])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HEARD": str(log), "PYTHONPATH": os.pathsep.join([str(site), root])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    processes = len((folder / "heard.txt.processes").read_text())
    return done.stdout, log.read_text().splitlines(), processes


def test_no_verb_opens_a_connection(tmp_path: Path) -> None:
    draw_sides(tmp_path / "pictures/train", 24, seed=0)
    draw_sides(tmp_path / "pictures/val", 8, seed=1)
    labeled = {
        "data": {"workers": 1},
        "pretrain": {"pictures": {"every": 3, "samples": 2}},
        "finetune": {"steps": 2, "batch": {"global": 8}},
    }
    write_recipe(tmp_path / "own.yaml", IMAGES, sets("pictures"), labeled)
    calls = [call.split() for call in CALLED]
    printed, found, processes = heard(tmp_path, CALLS.format(calls=calls))
    codes = [line.split()[1:] for line in printed.splitlines() if line.startswith("ENDED ")]
    assert codes == [[words[0], "0"] for words in calls]
    assert found == []
    assert processes > 1  # workers listened, too


@pytest.mark.parametrize(
    "code",
    [
        "import socket; s = socket.socket(); s.settimeout(0.1); s.connect_ex(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('127.0.0.1', 80)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 9))",
        (
            "import subprocess, sys; subprocess.run([sys.executable, '-c', "
            "'import socket; socket.socket().bind((\"127.0.0.1\", 0))'], check=True)"
        ),
    ],
    ids=["connect", "name", "datagram", "another process"],
)
def test_one_that_is_opened_is_heard(tmp_path: Path, code: str) -> None:
    _, found, _ = heard(tmp_path, code)
    assert len(found) == 1
