"""An attentive probe: one cross-attention block with a learned query over frozen tokens.

As V-JEPA's AttentivePooler of depth 1 (arXiv 2404.08471, appendix) and CAPI's: the query looks at
normalized tokens, then an MLP, both residual, then a linear head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from maekit.data.rng import generator, seeded
from maekit.engine.optim import parameter_groups
from maekit.engine.schedule import Schedule
from maekit.errors import RecipeError
from maekit.stop import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from maekit.recipe.probe import Attentive

_HEAD = 64  # channels of one head, where the recipe does not say how many there are
_CHUNK = 256  # samples at once
_EPS = 1e-6


class AttentiveHead(nn.Module):
    """Tokens ``[B, N, features]`` to logits ``[B, K]``.

    Args:
        features: the tokens' width; where it is not the block's, a learned projection comes first.
        width: D, the block's.
        classes: K.
        heads: of the attention.
    """

    def __init__(self, features: int, width: int, classes: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Identity() if features == width else nn.Linear(features, width)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.norm_tokens = nn.LayerNorm(width, eps=_EPS)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.head = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``[B, K]`` of tokens ``[B, N, features]``."""
        query = self.query.expand(len(tokens), -1, -1)
        seen = self.norm_tokens(self.project(tokens))
        query = query + self.attention(query, seen, seen, need_weights=False)[0]
        query = query + self.mlp(self.norm(query))
        logits: Tensor = self.head(query[:, 0])
        return logits

    @torch.inference_mode()
    def probabilities(self, tokens: Tensor) -> Tensor:
        """Compute class probabilities ``[m, K]`` of tokens ``[m, N, features]``."""
        self.eval()
        return torch.cat([self(chunk).softmax(dim=-1) for chunk in tokens.split(_CHUNK)])


def num_heads(width: int, requested: int | None) -> int:
    """Return how many attention heads divide a width: as requested, else one for about 64 channels.

    Raises:
        RecipeError: the requested number does not divide it.
    """
    if requested is not None:
        if width % requested:
            msg = f"{requested} heads do not divide features of width {width}"
            raise RecipeError(msg, where="probe.attentive.heads", hint="leave it out")
        return requested
    most = max(1, width // _HEAD)
    return next(heads for heads in range(most, 0, -1) if width % heads == 0)


def fit_attentive(
    tokens: Tensor,
    labels: Tensor,
    classes: int,
    options: Attentive,
    *,
    width: int,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, float], None] = lambda _epoch, _loss: None,
) -> AttentiveHead:
    """Train the block with AdamW and a cosine; the same seed gives the same head.

    Args:
        tokens: float32 ``[n, N, features]``, on the CPU; batches are moved to the device.
        labels: int64 ``[n]``.
        classes: K.
        options: heads, budget, optimizer.
        width: of the block.
        seed: of the initialization and the order.
        device: where it is trained.
        on_epoch: called with each epoch's number and mean loss.

    Raises:
        Interrupted: a signal came.
    """
    with seeded(seed, purpose="probe/attentive"):
        heads = num_heads(width, options.heads)
        head = AttentiveHead(tokens.shape[-1], width, classes, heads)
    head.to(device)
    groups = parameter_groups(head.named_parameters(), options.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=options.lr)
    per_epoch = -(-len(tokens) // options.batch)
    steps = options.epochs * per_epoch
    warmup = min(round(options.warmup * per_epoch), steps)
    schedule = Schedule(steps, warmup, options.lr, 0.0)
    for epoch in range(options.epochs):
        order = generator(seed, purpose="probe/order", epoch=epoch).permutation(len(tokens))
        total = 0.0
        for place in range(per_epoch):
            check()
            rows = torch.from_numpy(order[place * options.batch : (place + 1) * options.batch])
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr(epoch * per_epoch + place)
            logits = head(tokens[rows].to(device))
            loss = functional.cross_entropy(logits, labels[rows].to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(rows)
        on_epoch(epoch, total / len(tokens))
    return head.eval()
