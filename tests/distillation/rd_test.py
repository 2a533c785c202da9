"""Ranking distillation: static and dynamic weights, and a list that is only pulled up where it needs to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.distillation import rd
from alkd_jax.distillation import teacher as teachers
from alkd_jax.types import Sequences, Sessions


def test_static_weights_fall_by_e_and_sum_to_one():
    weights = rd.static_weights(4)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(weights[:-1] / weights[1:], np.e, rtol=1e-5)
    np.testing.assert_allclose(rd.static_weights(3, sharpness=1e6), 1 / 3, rtol=1e-4)


def test_dynamic_weights_compare_the_estimated_rank_with_the_position():
    sampled = jnp.arange(10.0)[None]
    listed = jnp.array([[8.5, 20.0, 20.0, -5.0]])
    # One of ten above the first: rank ⌊99 · 1 / 10⌋ = 9 of 100; none above the next two; all above the last.
    expected = np.maximum(0, np.tanh(0.1 * (np.array([9, 0, 0, 99]) - np.arange(4))))
    np.testing.assert_allclose(rd.dynamic_weights(listed, sampled, num_items=100)[0], expected, rtol=1e-5)


def test_a_student_that_ranks_the_list_first_has_no_loss():
    sampled = jnp.zeros((2, 50))

    def loss(listed, step):
        weights = rd.final_weights(listed, sampled, step=step, dynamic_from=10.0, num_items=1000)
        return rd.list_loss(listed, weights)

    above = jnp.full((2, 5), 3.0)
    np.testing.assert_array_equal(jax.grad(loss)(above, 10), 0.0)
    assert (jax.grad(loss)(above, 9) < 0).all()
    assert (jax.grad(loss)(-above, 10) < 0).all()


def test_dynamic_weights_start_at_their_step():
    listed, sampled = jax.random.normal(jax.random.key(0), (2, 3, 4))
    early, dynamic = (
        rd.final_weights(listed, sampled, step=step, dynamic_from=5.0, num_items=50, sharpness=2.0) for step in (4, 5)
    )
    static = rd.static_weights(4, sharpness=2.0)
    np.testing.assert_allclose(early, jnp.broadcast_to(static[None], (3, 4)), rtol=1e-6)
    np.testing.assert_allclose(dynamic, static[None] * rd.dynamic_weights(listed, sampled, num_items=50), rtol=1e-6)


def test_the_loss_ignores_empty_positions_and_rows_and_its_weights_get_no_gradient():
    listed = jnp.array([[1.0, -2.0, 50.0], [0.3, 0.3, 0.3]])
    weights = jnp.array([[0.5, 0.2, 0.9], [9.0, 9.0, 9.0]])
    where, rows = jnp.array([[True, True, False]] * 2), jnp.array([1.0, 0.0])
    expected = 0.5 * np.log1p(np.exp(-1.0)) + 0.2 * np.log1p(np.exp(2.0))
    assert rd.list_loss(listed, weights, where=where, weight=rows) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(jax.grad(rd.list_loss, 1)(listed, weights), 0.0)


def test_the_teachers_lists_exclude_the_items_and_the_target_of_the_session():
    rng = np.random.default_rng(0)
    teacher = teachers.TeacherEmbeddings(*(jnp.asarray(rng.normal(size=(n, 3)), jnp.float32) for n in (2, 9)))
    items = np.array([[1, 2, 3], [4, 5, 0]], np.int32)
    train = Sessions(items, items > 0, np.array([6, 7], np.int32), np.arange(2, dtype=np.int32))
    session_items = teachers.all_session_items(train, None)
    assert [sorted(row[row > 0].tolist()) for row in session_items] == [[1, 2, 3, 6], [4, 5, 7]]
    scores = np.asarray(teacher.sessions @ teacher.items.T)
    for row, actual in enumerate(teachers.teacher_lists(teacher, 5, session_items, batch_size=1)):
        free = [v for v in range(1, 9) if v not in session_items[row]]
        best = sorted(free, key=lambda v, r=row: -scores[r, v])
        assert actual.tolist() == (best + [0] * 5)[:5]
    with pytest.raises(ValueError, match="sequences has 1 sessions; expected the 2 of train"):
        teachers.all_session_items(train, Sequences(np.array([1], np.int32), np.array([0, 1], np.int32)))
