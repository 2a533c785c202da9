"""Models of which every parameter is at random."""

import jax
import jax.numpy as jnp
import numpy as np

from alkd_jax import models


def random_model(name, options, *, num_items, dim):
    """A backbone and its parameters, biases and padding rows at random too."""
    model = models.create(name, num_items=num_items, dim=dim, **options)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: models.init_params(jax.random.key(0), model))
    return model, jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), shapes)
