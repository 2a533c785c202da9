"""HSTU, the hierarchical sequential transduction unit: gated attention without a softmax."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax.checks import check_one_of
from alkd_jax.models.attention import layer_norm, linear_shapes, merge_heads, project, split_heads
from alkd_jax.models.attmix import l2_normalize
from alkd_jax.models.causal import BlockParams, CausalBlocks, Pairs, Shapes

TIME_BUCKETS = 128
"""The largest number of a bucket of times."""
BUCKET_STARTS = np.array(
    [math.ceil(math.exp(0.301 * number)) for number in range(1, TIME_BUCKETS + 1) if 0.301 * number < math.log(2**31)],
    np.int32,
)
"""The smallest whole number of seconds of every bucket after the first one, as far as whole numbers go."""


class HSTU(CausalBlocks):
    """HSTU with relative positions and, where the sessions have times, relative times.

    ``[u, v, q, k] = silu(LN(x) W)``, ``A_lm = silu(q_l · k_m + r_{l−m} + s_β(t_l − t_m)) / n_l`` for m ≤ l,
    ``y = LN(A v) ∘ u``, ``x ← x + drop(y) W_o + b``. Times in seconds have the bucket ``β(Δ) = ⌊log(max(1, Δ)) /
    0.301⌋``, at most 128. Scores are cosines divided by a temperature: ``u = x / (τ ‖x‖)``, ``Y_v = X_v / ‖X_v‖``.

    The time of position l is that of its own item. The authors' code has that of the item after it, which is to be
    predicted: where it is not known when a recommendation is made, it tells a model what it must not know.

    Attributes:
        divisor: n, "maximum" for ``max_length`` as in the paper, "length" for the number of items up to l.
        temperature: τ.
        time: whether the blocks read the times of interactions; otherwise s is 0.

    Raises:
        ValueError: an option is out of range, or ``time`` is set and there are no times.

    Reference:
        Zhai et al., Actions speak louder than words, ICML 2024, eq. 1-4.
    """

    divisor: str = "maximum"
    temperature: float = 0.05
    time: bool = False

    def setup(self) -> None:
        """Declares the parameters."""
        check_one_of("divisor", self.divisor, ("maximum", "length"))
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; expected a positive number")
        super().setup()

    @property
    def position_stddev(self) -> float:
        """``1/√D``."""
        return self.dim**-0.5

    def block_shapes(self) -> Shapes:
        """Returns the parameters of a block."""
        kernel: Shapes = {"joint_kernel": (nn.initializers.normal(0.02), (self.dim, 4 * self.dim))}
        bias: Shapes = {"relative_bias": (nn.initializers.normal(0.02), (self.max_length,))}
        if self.time:
            bias["time_bias"] = (nn.initializers.normal(0.02), (TIME_BUCKETS + 1,))
        return kernel | bias | linear_shapes("outer", self.dim, self.dim)

    @property
    def reads_times(self) -> bool:
        """Whether times are read."""
        return self.time

    def time_buckets(self, seconds: Int[Array, "B L"] | None) -> Int[Array, "B L M"] | None:
        """Returns β of the time between each position and each earlier one; later ones are not read."""
        if not self.time:
            return None
        if seconds is None:
            if self.is_initializing():
                return None
            raise ValueError("time is True and seconds is None; expected the times of the items")
        elapsed = jnp.maximum(seconds[:, :, None] - seconds[:, None], 1)
        # Which bucket a whole number of seconds has must not depend on how a platform rounds its logarithm.
        return jnp.searchsorted(BUCKET_STARTS, elapsed, side="right", method="scan_unrolled")

    def block(
        self, params: BlockParams, x: Float[Array, "B L D"], pairs: Pairs, *, train: bool
    ) -> Float[Array, "B L D"]:
        """Computes a block."""
        joint = jax.nn.silu(project(params, "joint", layer_norm(x)))
        gate, *parts = jnp.split(joint, 4, axis=-1)
        value, query, key = (split_heads(part, self.heads) for part in parts)
        position = jnp.arange(x.shape[1])
        distance = jnp.maximum(position[:, None] - position[None], 0)
        energy = query @ key.swapaxes(2, 3) + params["relative_bias"][distance][None, None]
        if pairs.bucket is not None:
            energy += params["time_bias"][pairs.bucket][:, None]
        divisor = pairs.visible.sum(-1)[:, None, :, None] if self.divisor == "length" else self.max_length
        weight = jnp.where(pairs.visible[:, None], jax.nn.silu(energy), 0.0) / divisor
        attended = merge_heads(weight @ value)
        return x + project(params, "outer", self.drop(layer_norm(attended) * gate, train))

    def output(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Returns vectors of norm 1/τ."""
        return l2_normalize(x) / self.temperature

    def item_embeddings(self, *, train: bool = False) -> Float[Array, "V D"]:
        """Returns the table that scores items, of norm 1, with ``train`` after dropout; row 0 is padding."""
        return l2_normalize(super().item_embeddings(train=train))
