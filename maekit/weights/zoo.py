"""The weights that the papers' authors published: where they are, and how they are fetched.

Nothing is mirrored: a file comes from its authors' own address, after its license was agreed to.
Addresses are those of the projects' own pages, which each entry's ``source`` names.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from maekit.atomic import write_atomically, write_text
from maekit.errors import RecipeError, StorageError, WeightsError
from maekit.progress import counted
from maekit.recipe.explain import suggest
from maekit.version import __version__

NON_COMMERCIAL = "CC BY-NC 4.0: attribution, no commercial use"
TIMEOUT = 30.0  # seconds without an answer
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class PublicFile:
    """One published file.

    Attributes:
        what: what it holds.
        source: who publishes it: the page that names the address, or the comment that does.
        address: of the file itself; None where only a page for browsers is published.
        page: that page.
        md5: the digest's first digits, where the authors give them.
    """

    name: str
    what: str
    source: str
    address: str | None = None
    page: str | None = None
    md5: str | None = None
    license: str = NON_COMMERCIAL

    @property
    def where(self) -> str:
        """The address to show."""
        return self.address or f"{self.page} (a page for browsers)"


def _mae() -> list[PublicFile]:
    """List facebookresearch/mae: README.md; KaimingHe's comments in its issues 8 and 3."""
    base = "https://dl.fbaipublicfiles.com/mae"
    # The first digits of md5, README.md, "Fine-tuning with pre-trained checkpoints".
    digits = {"base": "8cad7c", "large": "b8b06e", "huge": "9bdbb0"}
    readme, issues = "facebookresearch/mae README.md", "facebookresearch/mae issue"
    files = []
    for size, md5 in digits.items():
        name = f"mae_pretrain_vit_{size}"
        what = f"MAE ViT-{size[0].upper()}, ImageNet-1k: "
        pretrain, visualize = f"{base}/pretrain/{name}", f"{base}/visualize/mae_visualize_vit_"
        files += [
            PublicFile(name, f"{what}encoder", readme, f"{pretrain}.pth", md5=md5),
            PublicFile(
                f"{name}_full",
                f"{what}encoder and decoder, normalized pixels",
                f"{issues} 8",
                f"{pretrain}_full.pth",
            ),
            PublicFile(
                f"mae_visualize_vit_{size}",
                f"{what}encoder and decoder, plain pixels: for pictures",
                f"{issues} 3",
                f"{visualize}{size}.pth",
            ),
        ]
    gan = PublicFile(
        "mae_visualize_vit_large_ganloss",
        "MAE ViT-L, ImageNet-1k: encoder and decoder, plain pixels, with an adversarial loss",
        "facebookresearch/mae demo/mae_visualize.ipynb",
        f"{base}/visualize/mae_visualize_vit_large_ganloss.pth",
    )
    return [*files, gan]


def _videomae() -> list[PublicFile]:
    """List MCG-NJU/VideoMAE: MODEL_ZOO.md, column "Pre-train", which links Google Drive."""
    rows = {
        "k400_vit_s_1600": "1nU-H1u3eJ-VuyCveU7v-WIOcAVxs5Hww",
        "k400_vit_b_800": "1JfrhN144Hdg7we213H1WxwR3lGYOlmIn",
        "k400_vit_b_1600": "1tEhLyskjb755TJ65ptsrafUG2llSwQE1",
        "k400_vit_l_1600": "1qLOXWb_MGEvaI7tvuAe94CV7S2HXRwT3",
        "k400_vit_h_1600": "1AJQR1Rsi2N1pDn9tLyJ8DQrUREiBA1bO",
        "ssv2_vit_s_2400": "1p_I1aaONOeUvRmRQw1UT3-L2H8XJClHu",
        "ssv2_vit_b_800": "181hLvyrrPW2IOGA46fkxdJk0tNLIgdB2",
        "ssv2_vit_b_2400": "1I18dY_7rSalGL8fPWV82c0-foRUDzJJk",
        "ucf101_vit_b_3200": "1BHev4meNgKM0o_8DMRbuzAsKSP3IpQ3o",
    }
    files = []
    for row, identity in rows.items():
        data, _, size, epochs = row.upper().split("_")
        files.append(
            PublicFile(
                f"videomae_{row}",
                f"VideoMAE ViT-{size}, {data}, {epochs} epochs: encoder and decoder",
                "MCG-NJU/VideoMAE MODEL_ZOO.md",
                page=f"https://drive.google.com/file/d/{identity}/view",
            )
        )
    return files


FILES: tuple[PublicFile, ...] = (*_mae(), *_videomae())


def find(name: str) -> PublicFile:
    """Find the published file of a name, with or without ``.pth``.

    Raises:
        RecipeError: there is none.
    """
    for file in FILES:
        if file.name == name.removesuffix(".pth"):
            return file
    near = suggest(name, (file.name for file in FILES))
    hint = "`maekit weights list` shows them all"
    raise RecipeError(f"no public weights '{name}'", hint=f"{near} {hint}" if near else hint)


def address_of(file: PublicFile, given: str | None) -> str:
    """Return where to fetch a file from: the address given, or the published one.

    Raises:
        RecipeError: only a page for browsers is published, or the address is not http(s).
    """
    address = given or file.address
    if address is None:
        msg = f"{file.source} publishes {file.name} on a page for browsers: {file.page}"
        hint = "download it there, or give --url with the address of a copy"
        raise RecipeError(msg, hint=hint)
    if urlsplit(address).scheme not in ("http", "https"):
        msg = f"'{address}' is not an http or https address"
        raise RecipeError(msg, where="--url", hint="give one that starts with https://")
    return address


@dataclass(frozen=True)
class Fetched:
    """A downloaded file."""

    path: Path
    bytes: int
    sha256: str
    md5: str


def fetch(file: PublicFile, address: str, folder: Path) -> Fetched:
    """Download a file into a folder, and write its sha256 to ``NAME.sha256``.

    The file appears whole or not at all.

    Args:
        file: which published file it is.
        address: where it is fetched from.
        folder: where it is put.

    Raises:
        RecipeError: the file is there already.
        WeightsError: there is no connection, no such file, it was cut short, or it is another file
            than the authors', by its md5.
        StorageError: the folder cannot be written.
    """
    final = folder / _file_name(file, address)
    if final.exists():
        raise RecipeError(f"{final} is there already", hint="delete it, or give another --out")

    def download(draft: Path) -> Fetched:
        with closing(_opened(address)) as answer, draft.open("wb") as out:
            fetched = _copied(answer, address, out, final, file.name)
        _check_md5(file, fetched, address)
        record = final.with_name(f"{final.name}.sha256")
        write_text(record, f"{fetched.sha256}  {final.name}\n")  # as sha256sum reads it
        return fetched

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return write_atomically(final, download)
    except OSError as error:
        msg = f"cannot write {final}: {error}"
        raise StorageError(msg, hint="free space, or give another --out") from error


def _file_name(file: PublicFile, address: str) -> str:
    """Return the published name, with the suffix of what is fetched."""
    return file.name + (PurePosixPath(urlsplit(address).path).suffix or ".pth")


def _opened(address: str) -> HTTPResponse:
    """Open an address; return the server's answer before its content.

    Raises:
        WeightsError: there is none, or it is a page.
    """
    request = Request(address, headers={"User-Agent": f"maekit/{__version__}"})  # noqa: S310
    try:
        answer: HTTPResponse = urlopen(request, timeout=TIMEOUT)  # noqa: S310 - http(s) only
    except (URLError, HTTPException, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        hint = "check the connection, or copy the file here and give its path to --from"
        raise WeightsError(f"cannot fetch: {reason}", where=address, hint=hint) from error
    if answer.headers.get_content_type() == "text/html":
        answer.close()
        msg = "the answer is a page, not a file"
        raise WeightsError(msg, where=address, hint="open it in a browser, or give --url")
    return answer


def _copied(
    answer: HTTPResponse,
    address: str,
    out: BinaryIO,
    final: Path,
    name: str,
) -> Fetched:
    """Write the content and hash it on its way."""
    announced = answer.headers.get("Content-Length")
    total = int(announced) if announced and announced.isdigit() else None
    sha, md5, count = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with counted(f"fetching {name}", total, "B") as fetched:
        while chunk := _read(answer, address):
            out.write(chunk)
            sha.update(chunk)
            md5.update(chunk)
            count += len(chunk)
            fetched(count)
    if count == 0 or (total is not None and count != total):
        msg = f"{count:,} bytes arrived, {total or 'more'} were announced"
        raise WeightsError(msg, where=address, hint="try again")
    return Fetched(final, count, sha.hexdigest(), md5.hexdigest())


def _read(answer: HTTPResponse, address: str) -> bytes:
    try:
        return answer.read(CHUNK)
    except (HTTPException, OSError) as error:
        msg = f"the connection broke: {error or type(error).__name__}"
        raise WeightsError(msg, where=address, hint="try again") from error


def _check_md5(file: PublicFile, fetched: Fetched, address: str) -> None:
    if file.md5 is not None and not fetched.md5.startswith(file.md5):
        msg = f"md5 {fetched.md5}, and {file.source} says {file.md5}…: not the published file"
        raise WeightsError(msg, where=address, hint="fetch it from its authors' address")
