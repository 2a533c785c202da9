"""SASRec and its successors gSASRec and eSASRec: causal softmax attention over the items of a session."""

import functools

import jax
from jaxtyping import Array, Float

from alkd_jax.checks import check_count, check_one_of
from alkd_jax.models import attention
from alkd_jax.models.attention import affine_norm, linear_shapes, norm_shapes, project
from alkd_jax.models.causal import BlockParams, CausalBlocks, Pairs, Shapes

_PROJECTIONS = ("query", "key", "value")


class SASRec(CausalBlocks):
    """Self-attentive sequential recommendation.

    The original block attends from normalized queries to keys and values that are not normalized, and its residuals
    start from what was normalized: ``n = LN(h)``, ``x = n + drop(Att(n W_q, h W_k, h W_v))``, ``y = LN(x)``,
    ``h ← y + drop(W₂ drop(relu(W₁ y)))``. The pre-norm block is that of later transformers:
    ``x = h + drop(W_o Att(n W_q, n W_k, n W_v))``, ``h ← x + drop(W₂ drop(relu(W₁ LN(x))))``. ``u = LN(hᴺ)``, and by
    default ``Y = X``.

    Attributes:
        variant: "original" or "pre_norm".
        multiplier: hidden width of the feed-forward layer divided by D; 1 in the paper.

    Reference:
        Kang and McAuley, Self-attentive sequential recommendation, ICDM 2018.
    """

    variant: str = "original"
    multiplier: int = 1

    def setup(self) -> None:
        """Declares the parameters."""
        check_one_of("variant", self.variant, ("original", "pre_norm"))
        check_count(1, multiplier=self.multiplier)
        super().setup()

    def block_shapes(self) -> Shapes:
        """Returns the parameters of a block."""
        hidden = self.multiplier * self.dim
        shapes: Shapes = dict(norm_shapes("attention_norm", self.dim))
        for name in _PROJECTIONS if self.variant == "original" else (*_PROJECTIONS, "attention_out"):
            shapes |= linear_shapes(name, self.dim, self.dim)
        shapes |= norm_shapes("forward_norm", self.dim)
        return shapes | linear_shapes("inner", self.dim, hidden) | linear_shapes("outer", hidden, self.dim)

    def block(
        self, params: BlockParams, x: Float[Array, "B L D"], pairs: Pairs, *, train: bool
    ) -> Float[Array, "B L D"]:
        """Computes a block."""
        drop = functools.partial(self.drop, train=train)
        normalized = affine_norm(params, "attention_norm", x)
        source = x if self.variant == "original" else normalized
        query, key, value = (project(params, n, normalized if n == "query" else source) for n in _PROJECTIONS)
        attended = attention.softmax_attention(query, key, value, pairs.visible, self.heads, drop)
        if self.variant == "original":
            x = normalized + drop(attended)
            residual = normalized = affine_norm(params, "forward_norm", x)
        else:
            residual = x + drop(project(params, "attention_out", attended))
            normalized = affine_norm(params, "forward_norm", residual)
        hidden = drop(jax.nn.relu(project(params, "inner", normalized)))
        return residual + drop(project(params, "outer", hidden))

    def output_shapes(self) -> Shapes:
        """Returns scale and bias of the last normalization."""
        return norm_shapes("norm", self.dim)

    def output(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Returns LN(x)."""
        return affine_norm(self.output_params, "norm", x)


class GSASRec(SASRec):
    """gSASRec: SASRec's original block, trained with gBCE and many negatives; items are not scaled.

    Reference:
        Petrov and Macdonald, gSASRec: reducing overconfidence in sequential recommendation, RecSys 2023.
    """

    dropout: float = 0.5
    scaled: bool = False


class ESASRec(SASRec):
    """eSASRec: gated residuals (LiGR), SwiGLU and normalization before each layer, trained with a sampled softmax.

    ``x = h + σ(h W₁ + b₁) ∘ drop(W_o Att(LN(h)))``, ``h ← x + σ(x W₂ + b₂) ∘ drop(SwiGLU(LN(x)))``. Gates read the
    residual stream, which is not normalized.

    Attributes:
        multiplier: hidden width of SwiGLU divided by D.

    Reference:
        Tikhonovich et al., eSASRec: enhancing transformer-based recommendations in a modular fashion, RecSys 2025;
        Borisyuk et al., LiGR, 2025.
    """

    blocks: int = 1
    variant: str = "pre_norm"
    multiplier: int = 4

    def block_shapes(self) -> Shapes:
        """Returns the parameters of a block."""
        shapes: Shapes = dict(norm_shapes("attention_norm", self.dim))
        for name in (*_PROJECTIONS, "attention_out", "attention_gate", "forward_gate"):
            shapes |= linear_shapes(name, self.dim, self.dim)
        return (
            shapes
            | norm_shapes("forward_norm", self.dim)
            | attention.swiglu_shapes(self.dim, self.multiplier * self.dim)
        )

    def block(
        self, params: BlockParams, x: Float[Array, "B L D"], pairs: Pairs, *, train: bool
    ) -> Float[Array, "B L D"]:
        """Computes a block."""
        drop = functools.partial(self.drop, train=train)
        normalized = affine_norm(params, "attention_norm", x)
        query, key, value = (project(params, name, normalized) for name in _PROJECTIONS)
        attended = attention.softmax_attention(query, key, value, pairs.visible, self.heads, drop)
        gate = jax.nn.sigmoid(project(params, "attention_gate", x))
        x = x + gate * drop(project(params, "attention_out", attended))
        gate = jax.nn.sigmoid(project(params, "forward_gate", x))
        return x + gate * drop(attention.swiglu(params, affine_norm(params, "forward_norm", x), drop))
