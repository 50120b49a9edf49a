"""The one home of every token convention: raster order, patch flattening, what a mask is.

N = t*h*w patch tokens in raster order (t, then h, then w); a patch flattens to (pt, ph, pw, c) with
c fastest; True = hidden; masks never count prefix tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from maekit.grid import Grid


@dataclass(frozen=True)
class Mask:
    """Visible tokens and queries of a batch.

    Attributes:
        visible: int64 ``[B, K]``, the tokens that the encoder embeds, in raster order.
        queries: int64 ``[B, Q]``, the tokens that the decoder must predict, in raster order.
        weight: float32 ``[B, Q]``, 0 where a query does not count (visible to the encoder under
            dual masking, padding, a bad file).
        tokens: N.
    """

    visible: Tensor
    queries: Tensor
    weight: Tensor
    tokens: int

    @classmethod
    def build(
        cls,
        hidden: Tensor,
        *,
        requested: Tensor | None = None,
        count: int | None = None,
        loss_on: Literal["hidden", "all"] = "hidden",
        sample_weight: Tensor | None = None,
        token_weight: Tensor | None = None,
    ) -> Mask:
        """Build a mask from bool maps.

        Args:
            hidden: ``[B, N]``, True = not seen by the encoder; the same number in every row.
            requested: ``[B, N]``, True = to be predicted; default: the hidden tokens, or with
                ``loss_on="all"`` every token.
            count: Q; default: as many as the first row asks for. Rows that ask for fewer are
                padded with queries of weight 0.
            loss_on: whether queries that the encoder sees count ("all") or not ("hidden").
            sample_weight: ``[B]``, 0 for a bad sample.
            token_weight: ``[B, N]``, 0 for a token whose pixels are not known.

        Raises:
            ValueError: rows hide different numbers of tokens, or ask for more than ``count``.
        """
        counts = hidden.sum(dim=1)
        if not bool((counts == counts[0]).all()):
            low, high = int(counts.min()), int(counts.max())
            msg = f"every sample must hide the same number of tokens; got {low} to {high}"
            raise ValueError(msg)
        keep = hidden.shape[1] - int(counts[0])
        if requested is None:
            requested = torch.ones_like(hidden) if loss_on == "all" else hidden
        requested_counts = requested.sum(dim=1)
        q = int(requested_counts[0]) if count is None else count
        if int(requested_counts.max()) > q:
            msg = f"a sample asks for {int(requested_counts.max())} tokens, more than {q}"
            raise ValueError(msg)
        # A stable sort of the map puts the wanted tokens first, each part in raster order; shapes
        # depend only on counts, never on which tokens they are.
        visible = hidden.to(torch.uint8).argsort(dim=1, stable=True)[:, :keep]
        queries = (~requested).to(torch.uint8).argsort(dim=1, stable=True)[:, :q]
        counts_in_loss = requested if loss_on == "all" else requested & hidden
        weight = counts_in_loss.gather(1, queries).to(torch.float32)
        if sample_weight is not None:
            weight = weight * sample_weight.to(weight)[:, None]
        if token_weight is not None:
            weight = weight * token_weight.to(weight).gather(1, queries)
        return cls(visible, queries, weight, hidden.shape[1])

    @classmethod
    def nothing_hidden(cls, batch: int, tokens: int, device: torch.device | str = "cpu") -> Mask:
        """Return the mask of inference: every token visible, no queries."""
        visible = torch.arange(tokens, device=device).expand(batch, tokens)
        none = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        return cls(visible, none, none.to(torch.float32), tokens)

    def to(self, device: torch.device | str) -> Mask:
        """Return the same mask on a device."""
        return replace(
            self,
            visible=self.visible.to(device, non_blocking=True),
            queries=self.queries.to(device, non_blocking=True),
            weight=self.weight.to(device, non_blocking=True),
        )

    def hidden(self) -> Tensor:
        """Return bool ``[B, N]``, True = not seen by the encoder."""
        shape = (self.visible.shape[0], self.tokens)
        everything = torch.ones(shape, dtype=torch.bool, device=self.visible.device)
        return everything.scatter(1, self.visible, value=False)


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens: ``[B, N, D]`` at ``[B, K]`` gives ``[B, K, D]``."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def require_clips(pixels: Tensor) -> Tensor:
    """Return pixels ``[B, C, T, H, W]`` as they are.

    Raises:
        ValueError: they have another number of dimensions; says which are meant.
    """
    if pixels.dim() == 5:
        return pixels
    hint = "; images have T = 1: pixels[:, :, None]" if pixels.dim() == 4 else ""
    msg = f"pixels are [B, C, T, H, W], these are {list(pixels.shape)}{hint}"
    raise ValueError(msg)


def patchify(pixels: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """Cut pixels ``[B, C, T, H, W]`` into patches ``[B, N, pt*ph*pw*C]``."""
    b, c, t, h, w = pixels.shape
    pt, ph, pw = patch
    x = pixels.reshape(b, c, t // pt, pt, h // ph, ph, w // pw, pw)
    return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(b, -1, pt * ph * pw * c)


def unpatchify(patches: Tensor, grid: Grid, patch: tuple[int, int, int]) -> Tensor:
    """Join patches ``[B, N, pt*ph*pw*C]`` to pixels ``[B, C, T, H, W]``; invert patchify."""
    b, _, size = patches.shape
    pt, ph, pw = patch
    c = size // (pt * ph * pw)
    x = patches.reshape(b, *grid, pt, ph, pw, c).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.reshape(b, c, grid.t * pt, grid.h * ph, grid.w * pw)


def channel_means(patches: Tensor, channels: int) -> Tensor:
    """Return the mean color of patches ``[B, K, pt*ph*pw*C]``: ``[B, K, C]``."""
    means: Tensor = patches.unflatten(-1, (-1, channels)).mean(dim=-2)
    return means


def flat_patches(colors: Tensor, like: Tensor) -> Tensor:
    """Return colors ``[B, Q or 1, C]`` as flat patches of the shape of ``like`` ``[B, Q, P]``."""
    return colors.repeat(1, 1, like.shape[-1] // colors.shape[-1])


def interpolate_from_visible(values: Tensor, mask: Mask, grid: Grid) -> Tensor:
    """Guess a value at each query from the visible tokens: inverse-distance weighting.

    Shepard's interpolation with power 4 on the token grid (among powers 1 to 6, Gaussian and
    exponential kernels within 1 % of the best on natural pictures); a query that is visible gets
    its own value. This is what stands for "interpolated from visible patches" everywhere.

    Args:
        values: ``[B, K, D]`` at ``mask.visible``.
        mask: which tokens are visible, and which are queries.
        grid: of the tokens.

    Returns:
        ``[B, Q, D]`` at ``mask.queries``.
    """
    if values.shape[1] == 0:
        msg = "nothing is visible: there is nothing to interpolate from"
        raise ValueError(msg)
    # In float32 also where the model runs in less: these are statistics.
    with torch.autocast(values.device.type, enabled=False):
        return _interpolated(values.float(), mask, grid)


def _interpolated(values: Tensor, mask: Mask, grid: Grid) -> Tensor:
    where = coordinates(grid).to(values)
    distance = torch.cdist(
        where[mask.queries], where[mask.visible], compute_mode="donot_use_mm_for_euclid_dist"
    )
    # The clamp gives a visible query's own value a weight of 1e12 against at most 1 for the others.
    weight = distance.clamp_min(1e-3) ** -4
    return (weight / weight.sum(dim=-1, keepdim=True)) @ values


def coordinates(grid: Grid) -> Tensor:
    """Return the (t, h, w) position of each token, int64 ``[N, 3]``, in raster order."""
    axes = torch.meshgrid(*(torch.arange(size) for size in grid), indexing="ij")
    return torch.stack(axes, dim=-1).reshape(-1, 3)
