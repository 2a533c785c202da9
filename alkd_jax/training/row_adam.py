"""Adam for item tables of which a step touches few rows: the same numbers as dense Adam, a third of the memory traffic.

Dense Adam goes over gradient, both moments and table several times although the gradient is zero nearly everywhere.
Kept as multiples of ``β^k``, k the steps since the last validation, moments without a gradient do not change at all:
``m_k = β₁ᵏ M_k`` with ``M_k = M_{k−1} + (1 − β₁) β₁⁻ᵏ g_k``. Only the touched rows are written, and one sweep is left,
that of the table itself.
"""

import dataclasses
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from alkd_jax.sparse_rows import Rows

MAX_STEPS = 400
"""After so many steps ``β₁ᵏ`` is 5e-19: gradients of up to 1e18 divided by it are still finite."""

_LEAST_ENTRIES = 2**21
"""A smaller table and its moments stay in a CPU's cache, where sweeps cost less than looking for rows."""

Tables: TypeAlias = dict[str, Float[Array, "V D"]]


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam's numbers; with ``weight_decay``, decoupled, AdamW's.

    Attributes:
        learning_rate: a number, or an optax schedule over steps.
        weight_decay: what a step takes off every parameter, times the learning rate.
    """

    learning_rate: float | optax.Schedule
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def dense(self) -> optax.GradientTransformation:
        """The same optimizer for gradients of any form."""
        options = {"b1": self.b1, "b2": self.b2, "eps": self.eps}
        if self.weight_decay == 0:
            return optax.adam(self.learning_rate, **options)
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay, **options)

    def sweep(self, value: Array, first: Array, second: Array, count: Array, scales: tuple[Any, Any]) -> Array:
        """A parameter after a step.

        Args:
            value: before it.
            first: ``m / scales[0]``.
            second: ``v / scales[1]``.
            count: steps taken, this one included.
            scales: of the moments.
        """
        steps = count.astype(jnp.float32)
        rate = self.learning_rate(count - 1) if callable(self.learning_rate) else self.learning_rate
        size = rate * scales[0] / (1 - self.b1**steps)
        spread = scales[1] / (1 - self.b2**steps)
        return (1 - rate * self.weight_decay) * value - size * first / (jnp.sqrt(spread * second) + self.eps)


def worth_it(tables: Tables) -> bool:
    """Whether the tables are so large that rows should be looked for."""
    return jax.default_backend() == "cpu" and all(math.prod(table.shape) >= _LEAST_ENTRIES for table in tables.values())


def update(
    adam: Adam,
    params: dict[str, Array],
    moments: tuple[dict[str, Array], dict[str, Array]],
    gradient: dict[str, Array],
    read: dict[str, tuple[Array, Array]],
    count: Int[Array, ""],
    since: Int[Array, ""],
) -> tuple[dict[str, Array], tuple[dict[str, Array], dict[str, Array]]]:
    """One step.

    Args:
        adam: its numbers.
        params: by name.
        moments: first and second; a table's as multiples of ``β^(since − 1)``.
        gradient: of the parameters that are no tables.
        read: of each table, the rows that were read, and the gradient of each.
        count: steps taken, this one included.
        since: of these, since the tables' moments were themselves.

    Returns:
        Parameters and moments, a table's as multiples of ``β^since``.
    """
    params, (first, second) = dict(params), (dict(moments[0]), dict(moments[1]))
    for name, own in gradient.items():
        first[name] = adam.b1 * first[name] + (1 - adam.b1) * own
        second[name] = adam.b2 * second[name] + (1 - adam.b2) * own * own
        params[name] = adam.sweep(params[name], first[name], second[name], count, (1.0, 1.0))
    scales = scales_after(adam, since)
    for name, (place, rows) in read.items():
        # The padding too: the authors' STAMP learns its vector.
        touched = Rows(params[name], place.reshape(-1), rows.reshape(-1, rows.shape[-1]), first=0)
        own = touched.gradient
        first[name] = touched.write(first[name], touched.read(first[name]) + (1 - adam.b1) / scales[0] * own)
        second[name] = touched.write(second[name], touched.read(second[name]) + (1 - adam.b2) / scales[1] * own * own)
        params[name] = adam.sweep(params[name], first[name], second[name], count, scales)
    return params, (first, second)


def scales_after(adam: Adam, since: Int[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """``β₁^since`` and ``β₂^since``."""
    steps = since.astype(jnp.float32)
    return adam.b1**steps, adam.b2**steps
