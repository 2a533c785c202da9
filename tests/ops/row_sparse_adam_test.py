"""Postponed updates of table rows have the numbers of dense Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from alkd_jax.ops import row_sparse_adam
from alkd_jax.ops.row_sparse_adam import Adam


def test_rows_read_now_and_then_are_those_of_dense_adam_over_the_longest_interval():
    adam, steps = Adam(optax.linear_schedule(0.02, 0.005, 300), weight_decay=0.1), row_sparse_adam.MAX_STEPS
    value = jax.random.normal(jax.random.key(0), (6, 2))
    rng = np.random.default_rng(1)
    place = rng.choice(4, (steps, 3), p=[0.9, 0.08, 0.015, 0.005])
    # Row 4 is read once at the start, row 5 never.
    place[0] = 4
    gradient = rng.normal(size=(steps, 3, 2)).astype(np.float32) * 10.0 ** rng.integers(-6, 1, (steps, 3, 1))
    optimizer = adam.as_optax()

    @jax.jit
    def both(value, place, gradient):
        def by_rows(carry, now):
            table, pending = carry
            interval_step, place, gradient = now
            rows = row_sparse_adam.unique_rows(place, len(value))
            table = row_sparse_adam.apply_pending(adam, table, rows, pending, interval_step)
            read, update = table.value[place], adam.update_at(interval_step, interval_step)
            table = row_sparse_adam.update_rows(adam, table, rows, gradient, update, interval_step)
            return (table, pending.append(update, interval_step)), read

        def dense(carry, now):
            value, state = carry
            _, place, gradient = now
            whole = jnp.zeros_like(value).at[place].add(gradient)
            updates, state = optimizer.update(whole, state, value)
            return (optax.apply_updates(value, updates), state), value[place]

        plan = 1 + jnp.arange(steps), place, gradient
        zeros = jnp.zeros_like(value)
        table = row_sparse_adam.init_table(value, zeros, zeros)
        (table, pending), read = jax.lax.scan(by_rows, (table, row_sparse_adam.no_pending_updates(steps)), plan)
        (wanted, state), wanted_read = jax.lax.scan(dense, (value, optimizer.init(value)), plan)
        ours = row_sparse_adam.apply_all_pending(adam, table, pending, steps)
        return (*ours, read), (wanted, *(optax.tree.get(state, name) for name in ("mu", "nu")), wanted_read)

    for ours, wanted in zip(*both(value, place, gradient), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=3e-4, atol=2e-6)
