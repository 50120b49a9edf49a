"""PCA target: the largest coefficients of a patch (MAE table 1d, section 4.1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from maekit.contracts import PartContext
from maekit.errors import PartError, WeightsError
from maekit.targets.pixel import Pixel
from maekit.tokens import Mask, gather


class PCA(Pixel):
    """Coefficients of a patch along the directions in which patches differ most.

    The directions are found before the first step, from the first training batches, in the space
    that ``space`` names; they are kept with the weights. Coefficients are not scaled: their
    variances are the covariance's eigenvalues, largest first.
    """

    class Options(Pixel.Options):
        components: int = Field(96, ge=1, description="coefficients per patch (MAE: 96)")

    options: Options

    def __init__(self, options: Options, context: PartContext) -> None:
        super().__init__(options, context)
        if options.components > self.values:
            what = f"{options.components} components of patches that have {self.values} values"
            raise PartError(what, where="pretrain.target", hint="ask for fewer components")
        self.out_dim = options.components
        self._tensors: dict[str, Tensor] = {}

    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Find the directions: the covariance of all patches, batch by batch, in float64.

        Args:
            batches: of views ``[B, C, T, H, W]`` in [0, 1], as ``encode`` gets them.

        Raises:
            PartError: fewer than two patches, or a value that is not finite.
        """
        moments = Moments(self.values)
        for views in batches:
            moments.add(self._possible(self._truth(views)).flatten(0, 1))
        self._tensors = _principal(moments, self.options.components)

    def state(self) -> dict[str, Tensor]:
        """Return ``mean [P]``, ``components [k, P]`` and ``variance [k]``, float32."""
        return dict(self._fitted())

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of ``state``.

        Raises:
            WeightsError: they are of another target.
        """
        k = self.options.components
        shapes = {"mean": (self.values,), "components": (k, self.values), "variance": (k,)}
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != shapes:
            what = f"the PCA target needs tensors {shapes}, the weights have {found}"
            raise WeightsError(what, hint="use the recipe that these weights come from")
        self._tensors = dict(tensors)

    def encode(self, views: Sequence[Tensor], mask: Mask) -> Tensor:
        """Project clips ``[B, C, T, H, W]`` in [0, 1] to coefficients ``[B, Q, components]``."""
        patches = gather(self._truth(views), mask.queries)
        fitted = self._fitted(patches.device)
        # Autocast would round the truth to half precision.
        with torch.autocast(patches.device.type, enabled=False):
            return (patches - fitted["mean"]) @ fitted["components"].T

    def decode(
        self,
        pred: Tensor,
        pixels: Tensor,  # noqa: ARG002 (a patch's mean is among the coefficients)
        mask: Mask,  # noqa: ARG002
        statistics: Literal["visible", "truth"] = "visible",  # noqa: ARG002
    ) -> Tensor:
        """Turn coefficients ``[B, Q, k]`` into patches ``[B, Q, pt*ph*pw*C]`` in [0, 1]."""
        fitted = self._fitted(pred.device)
        with torch.autocast(pred.device.type, enabled=False):
            patches = pred.float() @ fitted["components"] + fitted["mean"]
        return self._in_clip(self._to_unit(patches))

    def _possible(self, patches: Tensor) -> Tensor:
        """Return those of ``[B, N, values]`` that can be queries."""
        wanted = torch.from_numpy(self.wants(self.grid)).reshape(-1)
        return patches[:, wanted.to(patches.device)]

    def _fitted(self, device: torch.device | None = None) -> dict[str, Tensor]:
        if not self._tensors:
            what = "the PCA target is not fitted, and these weights hold no fitted one"
            raise WeightsError(
                what, hint="pre-train from the start, or from weights of this target"
            )
        if device is not None and self._tensors["mean"].device != device:
            self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return self._tensors


class Moments:
    """Mean and scatter of rows that come in parts (Chan, Golub and LeVeque 1979), float64."""

    def __init__(self, values: int) -> None:
        self.count = 0
        self.mean = torch.zeros(values, dtype=torch.float64)
        self.scatter = torch.zeros(values, values, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take rows ``[n, values]``."""
        if not len(rows):
            return
        # Apple's GPUs have no float64.
        device = torch.device("cpu") if rows.device.type == "mps" else rows.device
        rows = rows.to(device, torch.float64)
        self.mean, self.scatter = self.mean.to(device), self.scatter.to(device)
        mean = rows.mean(dim=0)
        centered = rows - mean
        shift = mean - self.mean
        total = self.count + len(rows)
        weight = self.count * len(rows) / total
        self.scatter += centered.T @ centered + weight * torch.outer(shift, shift)
        self.mean += shift * (len(rows) / total)
        self.count = total

    def covariance(self) -> Tensor:
        """Return the unbiased covariance, ``[values, values]``."""
        return self.scatter / (self.count - 1)


def _principal(moments: Moments, components: int) -> dict[str, Tensor]:
    """Find the directions of largest variance, each with its largest entry positive."""
    covariance = moments.covariance() if moments.count > 1 else moments.scatter
    if moments.count < 2 or not bool(covariance.isfinite().all()):
        what = f"a PCA of {moments.count} patches cannot be computed: too few, or pixels not finite"
        raise PartError(what, where="pretrain.target", hint="look at data.train")
    variance, directions = torch.linalg.eigh(covariance)
    directions = directions.T.flip(0)[:components]
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return {
        "mean": moments.mean.float(),
        "components": (directions * largest.sign()).float().contiguous(),
        "variance": variance.flip(0)[:components].float().contiguous(),
    }
