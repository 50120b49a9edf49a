"""``maekit weights list`` and ``get``, against a server in this process."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from maekit.cli import zoo as command
from maekit.cli.commands.weights import weights as weights_group
from maekit.weights import zoo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONTENT = bytes(range(256)) * 9000  # more than two chunks
MD5 = hashlib.md5(CONTENT).hexdigest()
NAME = "mae_pretrain_vit_base"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/absent"):
            self.send_error(404)
            return
        page = self.path.startswith("/page")
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if page else "application/octet-stream")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 1_500_000 if self.path.startswith("/cut") else None])

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def weights(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Try the group alone; the md5 of the published file is that of the server's."""
    files = [
        zoo.PublicFile(**(vars(each) | {"md5": MD5[:6]})) if each.name == NAME else each
        for each in zoo.FILES
    ]
    monkeypatch.setattr(zoo, "FILES", tuple(files))

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            weights_group(list(words))
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, " ".join(said.err.split())

    return call


def test_every_file_says_where_it_is_and_who_says_so(weights: Any) -> None:
    code, out, _ = weights("list", "--json")
    assert code == 0
    files = json.loads(out)
    assert len({file["name"] for file in files}) == len(files) == 19
    for file in files:
        assert (file["address"] is None) != (file["page"] is None)
        assert file["source"].startswith(("facebookresearch/mae", "MCG-NJU/VideoMAE"))
        assert "CC BY-NC" in file["license"]
    by_name = {file["name"]: file for file in files}
    assert by_name["mae_pretrain_vit_huge"]["md5"] == "9bdbb0"
    assert by_name["mae_visualize_vit_huge"]["address"].endswith(
        "visualize/mae_visualize_vit_huge.pth"
    )
    assert NAME in weights("list")[1]


def test_a_file_is_fetched_whole_with_its_digest(weights: Any, server: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    words = ("get", NAME, "--yes", "--url", f"{server}/w.pth", "--out", str(out))
    code, said, err = weights(*words, "--json")
    assert code == 0, err
    assert err.index("license: CC BY-NC 4.0") < err.index(f"address: {server}/w.pth")
    result = json.loads(said)
    path = out / f"{NAME}.pth"
    assert path.read_bytes() == CONTENT
    assert result["path"] == str(path)
    assert result["md5_checked"] is True
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert result["sha256"] == digest
    assert (out / f"{NAME}.pth.sha256").read_text() == f"{digest}  {NAME}.pth\n"
    assert len(list(out.iterdir())) == 2
    again = weights(*words)
    assert again[0] == 2
    assert "is there already" in again[2]


@pytest.mark.parametrize(
    ("place", "code", "what"),
    [
        ("absent.pth", 3, "Not Found"),
        ("page.pth", 3, "a page, not a file"),
        ("cut.pth", 3, "were announced"),
    ],
)
def test_what_does_not_arrive_leaves_nothing(
    weights: Any, server: str, tmp_path: Path, place: str, code: int, what: str
) -> None:
    done = weights("get", NAME, "--yes", "--url", f"{server}/{place}", "--out", str(tmp_path))
    assert done[0] == code
    assert what in done[2]
    assert list(tmp_path.iterdir()) == []


def test_another_file_is_refused(weights: Any, server: str, tmp_path: Path) -> None:
    words = ("mae_pretrain_vit_large", "--yes", "--url", f"{server}/w.pth", "--out", str(tmp_path))
    code, _, err = weights("get", *words)
    assert code == 3
    assert "b8b06e" in err
    assert list(tmp_path.iterdir()) == []


def test_offline_names_the_address_first(weights: Any, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/w.pth"
    code, _, err = weights("get", NAME, "--yes", "--url", url, "--out", str(tmp_path))
    assert code == 3  # as where timm's weights cannot be fetched
    assert f"address: {url}" in err
    assert "cannot fetch" in err
    assert list(tmp_path.iterdir()) == []


def test_the_license_has_to_be_agreed_to(
    weights: Any, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("get", NAME, "--url", f"{server}/w.pth", "--out", str(tmp_path))
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    code, _, err = weights(*words)
    assert code == 2
    assert "--yes" in err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, expected in ((False, 2), (True, 0)):
        monkeypatch.setattr(command.typer, "confirm", lambda *a, answer=answer, **k: answer)
        assert weights(*words)[0] == expected
    assert (tmp_path / f"{NAME}.pth").is_file()


def test_what_cannot_be_fetched_says_how(weights: Any, tmp_path: Path) -> None:
    code, _, err = weights("get", "videomae_k400_vit_b_800", "--yes", "--out", str(tmp_path))
    assert code == 2
    assert "drive.google.com" in err
    assert "--url" in err
    code, _, err = weights("get", "mae_pretrain_vit_bse", "--yes")
    assert code == 2
    assert f"did you mean '{NAME}'?" in err
    code, _, err = weights("get", NAME, "--yes", "--url", "file:///etc/passwd")
    assert code == 2
    assert "not an http" in err
