"""Sessions from files and from scratch, read on the host."""

from alkd_jax.data.released import load_released, load_released_rankings, load_released_selection
from alkd_jax.data.released_student import load_released_student
from alkd_jax.data.synthetic import synthetic

__all__ = ["load_released", "load_released_rankings", "load_released_selection", "load_released_student", "synthetic"]
