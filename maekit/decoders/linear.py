"""``linear``: one linear layer on the encoder's tokens, as SimMIM, BEiT and MaskFeat predict."""

from __future__ import annotations

from torch import Tensor, nn

from maekit.contracts import Decoder, Encoded, Grid, PartContext, PartOptions
from maekit.errors import PartError
from maekit.layers import TOKEN_STD
from maekit.tokens import Mask, gather


class LinearDecoder(Decoder, nn.Module):
    """Reads each query's prediction off the encoder's token in the same place.

    The encoder has to return hidden tokens too: it is fed the mask token in their places (SimMIM,
    arXiv 2111.09886, section 3; BEiT, arXiv 2106.08254; MaskFeat, arXiv 2112.09133). Initialized as
    BEiT's (modeling_pretrain.py, ``lm_head``): weights from a normal cut at one deviation of 0.02,
    the bias 0.

    Raises:
        PartError: the encoder returns visible tokens only.
    """

    class Options(PartOptions):
        pass

    def __init__(self, _options: Options, context: PartContext) -> None:
        super().__init__()
        if context.returns != "all":
            what = "a linear decoder sees no hidden tokens, as the encoder returns visible ones"
            hint = "set model.backbone.mask_token: true, or take the decoder vit"
            raise PartError(what, hint=hint)
        self.prefix_tokens = context.prefix_tokens
        self.head = nn.Linear(context.width, context.out_dim)
        nn.init.trunc_normal_(self.head.weight, std=TOKEN_STD, a=-TOKEN_STD, b=TOKEN_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, encoded: Encoded, mask: Mask, grid: Grid) -> Tensor:  # noqa: ARG002
        """Turn tokens ``[B, prefix + N, D]`` into ``[B, Q, out_dim]``, as queried."""
        tokens = encoded.tokens[:, self.prefix_tokens :]
        prediction: Tensor = self.head(gather(tokens, mask.queries))
        return prediction
