"""An encoder, or a whole classifier, as an ONNX file that onnxruntime agrees with.

Needs the extra ``onnx``.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from maekit.errors import PartError, StorageError, WeightsError
from maekit.weights.safetensors_io import header_text, model_tensors

if TYPE_CHECKING:
    from maekit.model import MaskedAutoencoder
    from maekit.weights.header import Header

NEEDS = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "pixels", "tokens"
BOUND = 1e-4  # of the largest difference, relative to the largest value
CHECKED = (1, 3)  # batches that onnxruntime is tried with
# Protocol buffers end at 2 GiB; weights of larger models are in a second file.
ONE_FILE = 1_900_000_000


def export_encoder(model: MaskedAutoencoder, path: Path, header: Header) -> float:
    """Write the encoder with nothing hidden, and compare it with onnxruntime's answer.

    The input ``pixels`` is float32 ``[batch, C, T, H, W]`` in the model's normalized space, of any
    batch; the output ``tokens`` is ``[batch, prefix + N, D]``, as of ``model.encode``. Mean,
    deviation and clip are in the file's metadata. Tokens are gathered, never picked by a boolean
    map, which some runtimes get wrong silently (pytorch/TensorRT#2024). The weights of a model
    above 1.9 GB are in ``path`` + ``.data``.

    Args:
        model: on the CPU, in float32 and evaluation mode, as ``load_model`` gives it.
        path: the file to write.
        header: that of the model.

    Returns:
        The largest difference, relative to the largest value of the true output.

    Raises:
        PartError: the extra is not installed.
        WeightsError: onnxruntime's answer differs by more than 1e-4; nothing is written.
        StorageError: the file cannot be written.
    """
    tensors = model_tensors(model)
    size = sum(tensor.nbytes for name, tensor in tensors.items() if name.startswith("backbone."))
    shape = (len(model.statistics.mean), *model.clip)
    return export_module(_Encoder(model).eval(), shape, path, header, size=size)


def export_module(
    module: nn.Module,
    shape: tuple[int, ...],
    path: Path,
    header: Header,
    *,
    size: int,
    output: str = OUTPUT,
    more: Mapping[str, str] | None = None,
) -> float:
    """Write a module of pixels ``[batch, C, T, H, W]``, and compare it with onnxruntime's answer.

    Args:
        module: on the CPU, in float32 and evaluation mode.
        shape: of its input, without the batch.
        path: the file to write.
        header: that of the model.
        size: bytes of its tensors.
        output: what its output is called.
        more: further metadata of the file.

    Returns, raises: as ``export_encoder``.
    """
    _require()
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            written = Path(folder) / path.name
            _write(module, shape, written, header, size=size, output=output, more=more or {})
            difference = max(_difference(module, shape, written, batch) for batch in CHECKED)
            if not difference <= BOUND:
                msg = f"onnxruntime's {output} differ by {difference:.2g} of the largest value"
                raise WeightsError(msg, where=str(path), hint="update onnxruntime and torch")
            for file in sorted(Path(folder).iterdir(), reverse=True):  # the graph last
                file.replace(path.parent / file.name)
    except OSError as error:
        msg = f"the ONNX file cannot be written: {error}"
        raise StorageError(msg, where=str(path), hint="free space, or give another path") from error
    return difference


class _Encoder(nn.Module):
    """The module that is exported: ``model.encode`` as a forward pass."""

    def __init__(self, model: MaskedAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode(pixels)


def _require() -> None:
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        msg = f"exporting to ONNX needs {', '.join(missing)}"
        raise PartError(msg, hint="pip install 'maekit[onnx]'")


def _write(
    module: nn.Module,
    shape: tuple[int, ...],
    path: Path,
    header: Header,
    *,
    size: int,
    output: str,
    more: Mapping[str, str],
) -> None:
    with _quiet():
        program = torch.onnx.export(
            module,
            (noise(shape, 2),),
            input_names=[INPUT],
            output_names=[output],
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    if program is None:
        msg = "torch.onnx.export returned no program, which only its older exporter does"
        raise RuntimeError(msg)
    program.model.metadata_props.update({"maekit": header_text(header), **more})
    program.save(path, external_data=size > ONE_FILE)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the optimizer's remarks about what it leaves as it is."""
    logger = logging.getLogger("onnxscript")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def noise(shape: tuple[int, ...], batch: int) -> Tensor:
    """Return noise ``[batch, *shape]``, the same each time."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, *shape, generator=generator)


@torch.no_grad()
def _difference(module: nn.Module, shape: tuple[int, ...], path: Path, batch: int) -> float:
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]

    pixels = noise(shape, batch)
    session = InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answer = torch.from_numpy(session.run(None, {INPUT: pixels.numpy()})[0])
    truth = module(pixels)
    return float((answer - truth).abs().max() / truth.abs().max())
