"""The section ``tokenizer:``: how a discrete VAE is built and trained.

Defaults are DALL-E's (arXiv 2102.12092, appendix A, and github.com/openai/DALL-E).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from maekit.recipe.sections import AdamW, Beta, HeldOutSection, PositiveRate, Section


class DVAESizes(Section):
    """The networks: one code stands for ``stride x stride`` pixels, ``stride = 2**(groups-1)``."""

    vocabulary: int = Field(8192, ge=2, le=1 << 20, description="codes in the codebook")
    width: int = Field(
        256, ge=4, multiple_of=4, description="features at full resolution; doubled in each group"
    )
    init_width: int = Field(128, ge=1, description="features that the decoder makes of a code")
    groups: int = Field(
        4, ge=1, le=8, description="of blocks; the resolution is halved between two groups"
    )
    blocks: int = Field(2, ge=1, description="residual blocks a group")

    @property
    def stride(self) -> int:
        """Pixels a side that one code stands for."""
        return 1 << (self.groups - 1)


class Temperature(Section):
    """Temperature of the relaxation: half a cosine from ``start`` to ``end``, then constant."""

    start: float = Field(1.0, gt=0, description="of the first update")
    end: float = Field(1 / 16, gt=0, description="where the half cosine ends")
    steps: int = Field(150_000, ge=0, description="updates; cut to the budget")


class KLWeight(Section):
    """Weight of the divergence from uniform codes: ``start`` to ``end``, then constant."""

    start: float = Field(0.0, ge=0, description="of the first update")
    end: float = Field(6.6, ge=0, description="where the half cosine ends")
    steps: int = Field(5_000, ge=0, description="updates; cut to the budget")


class TokenizerAdamW(AdamW):
    """AdamW with DALL-E's settings."""

    base_lr: PositiveRate = Field(5e-5, description="per 256 samples (DALL-E: 1e-4 at 512)")
    betas: tuple[Beta, Beta] = Field((0.9, 0.999), description="[beta1, beta2], in [0, 1)")
    weight_decay: float = Field(1e-4, ge=0, description="decoupled, per unit of learning rate")
    min_lr: float = Field(1.25e-6, ge=0, description="where the cosine ends")


class Tokenizer(HeldOutSection):
    """Training of a discrete VAE, whose codes ``dvae-token`` predicts."""

    dvae: DVAESizes = Field(DVAESizes(), description="the networks: codes, widths, depth")
    loss: Literal["logit-laplace", "mse", "l1"] = Field(
        "logit-laplace",
        description="of the reconstruction, per value: DALL-E's likelihood, or the error of "
        "[0, 1] pixels",
    )
    temperature: Temperature = Field(Temperature(), description="of the codes' relaxation")
    kl_weight: KLWeight = Field(KLWeight(), description="of the divergence from uniform codes")
    optimizer: TokenizerAdamW = Field(
        TokenizerAdamW(), description="AdamW's rates and weight decay (DALL-E's)"
    )
