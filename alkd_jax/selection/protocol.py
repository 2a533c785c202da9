"""The signature of a way to select the sessions that an LLM ranks."""

from typing import Protocol

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from alkd_jax.types import Sessions


class Selection(Protocol):
    """Selects sessions; a user's own function is named by ``package.module:attribute``."""

    def __call__(
        self, key: jax.Array, sessions: Sessions, difficulty: Float[np.ndarray, " N"], *, num: int
    ) -> Int[Array, " num"] | Int[np.ndarray, " num"]:
        """Selects distinct sessions.

        Args:
            key: a JAX key; the function consumes it. A deterministic selection ignores it.
            sessions: N sessions that can be ranked.
            difficulty: the difficulty of each for the teacher, see :func:`alkd_jax.selection.session_difficulty`.
            num: number of sessions to select, at most N.

        Returns:
            ``[num]`` distinct indices from 0 to N − 1, such as :func:`alkd_jax.selection.select` samples from a policy.
        """
        ...
