"""Our own transformer: attention, MLP, block, position tables, initialization.

Shapes: B samples, S tokens, D width, heads of ``D / heads``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maekit.errors import PartError
from maekit.grid import Grid

LAYER_NORM_EPS = 1e-6  # everywhere in MAE, VideoMAE and mae_st
TOKEN_STD = 0.02  # of fresh class tokens, mask tokens and positions, in all three
# On CPUs, SDPA's bfloat16 backward is slow for short sequences; an explicit product is not. Its
# forward and backward pass took 3.9 times as long as the product's at 50 tokens, 1.6 at 160, 1.15
# at 197, 0.96 at 512 and 0.76 at 800; without a backward pass SDPA is as fast or faster from 50 on
# (medians in turns, one core with AVX-512).
EXPLICIT_BELOW = 512

QKVBias = Literal["all", "qv", "none"]
ResizePositions = Literal["resample", "rebuild"]
PositionKind = Literal["sincos-1d", "sincos-2d", "sincos-3d", "learned", "learned-separable"]
Init = Literal["mae", "mae-st", "videomae", "timm"]


class Epsilons(NamedTuple):
    """What layer norms add to the variance: those of blocks, and the last one."""

    blocks: float
    last: float

    @classmethod
    def of(cls, blocks: float | None, last: float | None) -> Epsilons:
        """Fill in what is unset: the papers', and for the last norm that of the blocks."""
        inner = LAYER_NORM_EPS if blocks is None else blocks
        return cls(inner, inner if last is None else last)


class Statistics(NamedTuple):
    """Mean and standard deviation per channel that pixels are normalized with."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Normalizer(nn.Module):
    """Map from pixels in [0, 1] to the space that an encoder works in, channel by channel.

    Its buffers are not part of any file: weights keep the statistics in their header.
    """

    mean: Tensor  # float32 [1, C, 1, 1, 1]
    std: Tensor

    def __init__(self, statistics: Statistics) -> None:
        super().__init__()
        shape = (1, -1, 1, 1, 1)
        self.register_buffer("mean", torch.tensor(statistics.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(statistics.std).view(shape), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalize ``[B, C, T, H, W]``."""
        normalized: Tensor = (pixels - self.mean) / self.std
        return normalized

    def invert(self, pixels: Tensor) -> Tensor:
        """Take normalized pixels back to [0, 1]."""
        return pixels * self.std + self.mean


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax attention, ``[B, heads, S, D/heads]`` to the same.

    All attention of maekit goes through here.
    """
    short = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] < EXPLICIT_BELOW
    if short and torch.is_grad_enabled():
        return torch.matmul(attention_weights(q, k), v)
    attended: Tensor = F.scaled_dot_product_attention(q, k, v)
    return attended


def attention_weights(q: Tensor, k: Tensor) -> Tensor:
    """Return the softmax of attention, ``[B, heads, S, S]``, computed in float32."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-2, -1))
    return scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with a fused projection.

    ``qkv_bias="qv"`` is VideoMAE's: queries and values have a bias, keys a constant zero.
    """

    def __init__(self, width: int, heads: int, qkv_bias: QKVBias = "all") -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias == "all")
        if qkv_bias == "qv":
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))
        self.qkv_bias = qkv_bias
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, want_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Map ``[B, S, D]`` to ``[B, S, D]``, and on request the weights ``[B, heads, S, S]``."""
        b, s, d = x.shape
        bias: Tensor | None = self.qkv.bias
        if self.qkv_bias == "qv":
            bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        q, k, v = qkv.reshape(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = attention_weights(q, k) if want_weights else None
        out = attend(q, k, v) if weights is None else weights @ v
        return self.proj(out.transpose(1, 2).reshape(b, s, d)), weights


class MLP(nn.Module):
    """Two linear layers with an exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, S, D]`` to ``[B, S, D]``."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class DropPath(nn.Module):
    """Leaves a residual branch out, sample by sample, while training (arXiv 1603.09382).

    What stays is scaled by 1 / (1 - rate), so that the expectation is the branch itself.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """Map ``[B, S, D]`` to ``[B, S, D]``."""
        if not self.training or self.rate == 0:
            return branch
        keep = 1 - self.rate
        kept = torch.rand(len(branch), 1, 1, device=branch.device) < keep
        return branch * (kept.to(branch.dtype) / keep)


class Block(nn.Module):
    """A pre-norm transformer block, as timm 0.3.2's, on which MAE and VideoMAE are built."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: QKVBias = "all",
        drop_path: float = 0.0,
        norm_eps: float = LAYER_NORM_EPS,
    ) -> None:
        super().__init__()
        self.drop_path = DropPath(drop_path)
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = MLP(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, want_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Map ``[B, S, D]`` to ``[B, S, D]``, and on request return attention weights."""
        attended, weights = self.attn(self.norm1(x), want_weights)
        x = x + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x))), weights


class PatchEmbedding(nn.Module):
    """A linear embedding of patches, with the weight in a convolution's shape and order.

    Embedding gathered patches instead of convolving the whole clip does 1 / (1 - ratio) times less
    work and cannot see a hidden pixel.
    """

    def __init__(self, channels: int, width: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        conv = nn.Conv3d(channels, width, patch, stride=patch)
        self.weight = nn.Parameter(conv.weight.detach().clone())  # [D, C, pt, ph, pw]
        self.bias = nn.Parameter(conv.bias.detach().clone())  # type: ignore[union-attr]

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches ``[B, K, pt*ph*pw*C]`` (c fastest) as tokens ``[B, K, D]``."""
        weight = self.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return F.linear(patches, weight, self.bias)


def sincos_axis(positions: np.ndarray, width: int) -> np.ndarray:
    """Map positions ``[M]`` to ``[M, width]`` float64: sines, then cosines (MAE, pos_embed.py)."""
    omega = 10000.0 ** -(np.arange(width // 2, dtype=np.float64) / (width / 2))
    angles = positions.reshape(-1)[:, None] * omega[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_1d(grid: Grid, width: int) -> Tensor:
    """Return VideoMAE's fixed table, float32 ``[N, width]``: sine and cosine interleaved.

    One axis for time and space: a token's position is its number in raster order
    (modeling_finetune.py, get_sinusoid_encoding_table).
    """
    column = np.arange(width)
    angles = np.arange(grid.tokens)[:, None] / 10000.0 ** (2 * (column // 2) / width)
    table = np.where(column % 2 == 0, np.sin(angles), np.cos(angles))
    return torch.tensor(table.astype(np.float32))


def sincos_2d(grid: Grid, width: int) -> Tensor:
    """Return MAE's fixed table, float32 ``[N, width]``: the column fills the first half.

    Every time slot has the same positions.
    """
    if width % 4:
        msg = f"2-D sine-cosine positions need a width divisible by 4, got {width}"
        raise PartError(msg, hint="change the width, or the positions")
    row, column = np.meshgrid(np.arange(grid.h), np.arange(grid.w), indexing="ij")
    halves = [sincos_axis(axis, width // 2) for axis in (column, row)]
    table = np.concatenate(halves, axis=1).astype(np.float32)
    return torch.tensor(np.tile(table, (grid.t, 1)))


def sincos_3d(grid: Grid, width: int) -> Tensor:
    """Return a fixed table, float32 ``[N, width]``, with a third of the width each for t, h, w.

    A third is rounded up to an even number; what is then too much is cut off w's end.
    """
    third = 2 * -(-width // 6)
    axes = np.meshgrid(*(np.arange(size) for size in grid), indexing="ij")
    table = np.concatenate([sincos_axis(axis, third) for axis in axes], axis=1)
    return torch.tensor(table[:, :width].astype(np.float32))


FIXED = {"sincos-1d": sincos_1d, "sincos-2d": sincos_2d, "sincos-3d": sincos_3d}


def resample_rows(rows: Tensor, old: Grid, new: Grid) -> Tensor:
    """Resample a position table ``[old.tokens, D]`` to another grid: ``[new.tokens, D]``.

    Within a time slot bicubic, not aligned at corners, without antialias (MAE, util/pos_embed.py,
    interpolate_pos_embed; VideoMAE's detection code does so slot by slot). Over time linear; a
    single slot is repeated. An axis that keeps its length keeps its rows exactly.
    """
    if old == new:
        return rows
    slots = rows.reshape(*old, -1).permute(0, 3, 1, 2)  # [t, D, h, w]
    if old[1:] != new[1:]:
        slots = F.interpolate(slots.float(), size=new[1:], mode="bicubic", align_corners=False)
    if old.t == 1:
        slots = slots.expand(new.t, -1, -1, -1)
    elif old.t != new.t:
        lines = slots.float().flatten(1).T[None]  # [1, D*h*w, t]
        lines = F.interpolate(lines, size=new.t, mode="linear", align_corners=False)
        slots = lines[0].T.reshape(new.t, *slots.shape[1:])
    return slots.permute(0, 2, 3, 1).reshape(new.tokens, -1).to(rows.dtype)


class Positions(nn.Module):
    """Position embeddings: one row for each prefix token, then one for each of the grid's.

    - ``sincos-2d``: MAE's; a frozen parameter, because MAE counts it and keeps it in its weights.
    - ``sincos-1d``: VideoMAE's; a constant, neither counted nor kept. So is ``sincos-3d``.
    - ``learned``: a trained row per token.
    - ``learned-separable``: a trained row per place in a time slot plus one per time slot (mae_st).

    Fixed tables give the prefix zeros, as MAE gives its class token.

    Args:
        made_for: the grid that weights at another one were trained with: a fixed table is made for
            it and resampled, so that every token keeps the meaning that it was trained with.

    Raises:
        PartError: ``made_for`` is given for positions that are trained.
    """

    table: Tensor | None  # [1, prefix + N, D]

    def __init__(
        self,
        kind: PositionKind,
        grid: Grid,
        width: int,
        prefix: int = 0,
        made_for: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        if made_for is not None and kind not in FIXED:
            msg = f"{kind} positions are trained: there is no table to resize from a grid"
            raise PartError(msg, where="positions_grid", hint="remove positions_grid")
        self.kind: PositionKind = kind
        self.grid = grid
        self.width = width
        self.prefix_rows = prefix
        self.made_for = grid if made_for is None else Grid(*made_for)
        self._make()

    def _make(self) -> None:
        kind, grid, width, prefix = self.kind, self.grid, self.width, self.prefix_rows
        if kind == "learned-separable":
            self.spatial = _trained(grid.h * grid.w, width)
            self.temporal = _trained(grid.t, width)
            self.prefix = _trained(prefix, width) if prefix else None
            self.table = None
            return
        if kind == "learned":
            self.table = _trained(prefix + grid.tokens, width)
            return
        rows = resample_rows(FIXED[kind](self.made_for, width), self.made_for, grid)
        table = torch.cat([torch.zeros(prefix, width), rows])[None]
        if self.kept:
            self.table = nn.Parameter(table, requires_grad=False)
        else:
            self.register_buffer("table", table, persistent=False)

    @property
    def kept(self) -> bool:
        """Whether the rows are in a model's weights; otherwise they are made again."""
        return self.kind not in ("sincos-1d", "sincos-3d")

    def train_rows(self, trained: bool) -> None:
        """Train the rows, or leave them as they are.

        A table that the weights would not keep becomes a learned one.
        """
        if trained and not self.kept and self.table is not None:
            rows = self.table.clone()
            del self.table
            self.table = nn.Parameter(rows)
            self.kind = "learned"
        self.requires_grad_(trained)

    def forward(self, grid: Grid | None = None) -> Tensor:
        """Return the rows ``[prefix + N, D]``, resampled where another grid than the own is asked.

        A fixed table is then resampled from the grid that it was made for, in one go.
        """
        rows = self._own()
        if grid is None or grid == self.grid:
            return rows
        prefix, rows = rows.split([self.prefix_rows, self.grid.tokens])
        made_for = self.grid
        if self.kind in FIXED and self.made_for != self.grid:
            rows = FIXED[self.kind](self.made_for, self.width).to(rows)
            made_for = self.made_for
        return torch.cat([prefix, resample_rows(rows, made_for, grid)])

    def _own(self) -> Tensor:
        if self.table is not None:
            return self.table[0]
        tokens = self.temporal[0][:, None] + self.spatial[0][None]
        rows = tokens.flatten(0, 1)
        return rows if self.prefix is None else torch.cat([self.prefix[0], rows])


def _trained(rows: int, width: int) -> nn.Parameter:
    """Return a trained table ``[1, rows, width]``, initialized as mae_st's."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, rows, width), std=TOKEN_STD))


def init_transformer(module: nn.Module, init: Init = "mae") -> None:
    """Initialize as the papers do: Linear xavier uniform, biases 0, LayerNorm 1 and 0.

    A fused qkv counts as one ``[3D, D]`` matrix in MAE and VideoMAE; mae_st has three layers there
    (util/video_vit.py), whose bounds are wider by the root of 2. timm 0.3.2, by which MAE trains
    from scratch, draws from a normal with a deviation of 0.02.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            if init == "timm":
                nn.init.normal_(part.weight, std=TOKEN_STD)
            else:
                nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
    if init == "mae-st":
        for part in module.modules():
            if isinstance(part, Attention):
                for third in part.qkv.weight.detach().chunk(3):
                    nn.init.xavier_uniform_(third)


def init_patch_embedding(embedding: PatchEmbedding, init: Init) -> None:
    """Initialize as MAE and mae_st: xavier on the flat weight, the bias as a convolution's.

    VideoMAE and timm 0.3.2 keep the default of both.
    """
    if init not in ("videomae", "timm"):
        nn.init.xavier_uniform_(embedding.weight.view(embedding.weight.shape[0], -1))


def init_token(token: Tensor, init: Init) -> None:
    """Draw from a normal with a deviation of 0.02; VideoMAE cuts it at one deviation."""
    if init == "videomae":
        nn.init.trunc_normal_(token, std=TOKEN_STD, a=-TOKEN_STD, b=TOKEN_STD)
    else:
        nn.init.normal_(token, std=TOKEN_STD)
