"""Topology distillation: invariances, brute force, and that the hierarchy's extremes are the full topology."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.distillation import entities, experts, ftd, htd

N, D, T = 14, 4, 9


@pytest.fixture
def pair(key):
    one, two = jax.random.split(key)
    return jax.random.normal(one, (N, D)), jax.random.normal(two, (N, T))


def cosines(x):
    x = np.asarray(x, np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


def isometric(student):
    return student @ jnp.linalg.qr(jax.random.normal(jax.random.key(1), (T, D)))[0].T


def test_full_topology_equals_the_sum_over_pairs(pair):
    student, teacher = pair
    squares = (cosines(student) - cosines(teacher)) ** 2
    assert ftd.full_topology_loss(student, teacher) == pytest.approx(squares.sum(), rel=1e-5)
    assert 2 * np.triu(squares, 1).sum() == pytest.approx(squares.sum(), rel=1e-9)


def test_weights_make_repeated_entities_count_once(pair):
    student, teacher = pair
    ids = jnp.array([0, 1, 2, 2, 3, 1, 1])
    weight = entities.inverse_counts(ids, jnp.ones(7, bool))
    repeated = ftd.full_topology_loss(student[ids], teacher[ids], weight=weight)
    assert repeated == pytest.approx(float(ftd.full_topology_loss(student[:4], teacher[:4])), rel=1e-4)


def test_the_loss_is_zero_for_an_isometric_teacher_only(pair):
    student, _ = pair
    assert ftd.full_topology_loss(student, 3 * isometric(student)) == pytest.approx(0, abs=1e-4)
    stretched = student @ jax.random.normal(jax.random.key(2), (D, T))
    assert ftd.full_topology_loss(student, stretched) > 1


def test_the_loss_is_invariant_to_lengths_rotations_and_order_but_not_to_signs(pair, key):
    student, teacher = pair
    value = float(ftd.full_topology_loss(student, teacher))
    scale = jnp.exp(jax.random.normal(key, (N, 1)))
    rotation = jnp.linalg.qr(jax.random.normal(key, (D, D)))[0]
    order = jax.random.permutation(key, N)
    for changed in (student * scale, student @ rotation):
        assert ftd.full_topology_loss(changed, teacher) == pytest.approx(value, rel=1e-4)
    assert ftd.full_topology_loss(student[order], teacher[order]) == pytest.approx(value, rel=1e-4)
    flipped = student.at[0].multiply(-1)
    assert abs(ftd.full_topology_loss(flipped, teacher) - value) > 0.1


def test_the_gradient_is_that_of_the_pairs_and_finite_for_a_vector_of_zeros(pair):
    student, teacher = pair

    def by_pairs(s):
        return (
            (
                entities.normalize(s) @ entities.normalize(s).T
                - entities.normalize(teacher) @ entities.normalize(teacher).T
            )
            ** 2
        ).sum()

    actual = jax.grad(lambda s: ftd.full_topology_loss(s, teacher))(student)
    np.testing.assert_allclose(actual, jax.grad(by_pairs)(student), atol=1e-4)
    zero = jax.grad(lambda s: ftd.full_topology_loss(s, teacher))(student.at[2].set(0.0))
    assert jnp.isfinite(zero).all()


def test_the_teacher_gets_no_gradient(pair):
    student, teacher = pair
    group = jnp.arange(N) % 3
    for loss in (
        ftd.full_topology_loss,
        lambda s, t: htd.entity_topology_loss(s, t, group),
        lambda s, t: htd.group_topology_loss(s, t, group, num_groups=3, level="prototypes"),
    ):
        np.testing.assert_array_equal(jax.grad(loss, 1)(student, teacher), 0.0)


def test_one_group_is_the_full_topology(pair):
    student, teacher = pair
    group = jnp.zeros(N, jnp.int32)
    full = float(ftd.full_topology_loss(student, teacher))
    within = htd.entity_topology_loss(student, teacher, group, positive_only=False)
    assert within == pytest.approx(full, rel=1e-5)
    assert htd.group_topology_loss(student, teacher, group, num_groups=1, level="prototypes") == pytest.approx(0)


def test_the_entity_level_ignores_pairs_of_different_groups(pair):
    student, teacher = pair
    group = (jnp.arange(N) >= 5).astype(jnp.int32)
    blocks = ftd.full_topology_loss(student[:5], teacher[:5]) + ftd.full_topology_loss(student[5:], teacher[5:])
    within = htd.entity_topology_loss(student, teacher, group, positive_only=False)
    assert within == pytest.approx(float(blocks), rel=1e-5)


@pytest.mark.parametrize("level", htd.LEVELS)
def test_with_one_entity_in_each_group_only_the_group_level_remains(pair, level):
    student, teacher = pair
    group = jnp.arange(N)
    full = float(ftd.full_topology_loss(student, teacher))
    assert htd.entity_topology_loss(student, teacher, group) == pytest.approx(0, abs=1e-5)
    actual = htd.group_topology_loss(student, teacher, group, num_groups=N + 2, level=level)
    assert actual == pytest.approx(full, rel=1e-4)


@pytest.mark.parametrize("level", htd.LEVELS)
def test_the_loss_is_zero_for_an_isometric_teacher_in_any_grouping(pair, level):
    student, _ = pair
    group = jax.random.randint(jax.random.key(4), (N,), 0, 4)
    teacher = isometric(student)
    assert htd.entity_topology_loss(student, teacher, group) == pytest.approx(0, abs=1e-5)
    assert htd.group_topology_loss(student, teacher, group, num_groups=6, level=level) == pytest.approx(0, abs=1e-5)


def test_levels_equal_loops_over_groups_and_pairs(pair):
    student, teacher = pair
    group = np.asarray(jax.random.randint(jax.random.key(5), (N,), 0, 4))
    of_student, of_teacher = cosines(student), cosines(teacher)
    same = (group[:, None] == group[None, :]) & (of_teacher > 0)
    expected = ((of_student - of_teacher) ** 2)[same].sum()
    assert htd.entity_topology_loss(student, teacher, jnp.asarray(group)) == pytest.approx(expected, rel=1e-5)
    totals = dict.fromkeys(htd.LEVELS, 0.0)
    present = sorted(set(group.tolist()))
    centres = [np.stack([np.asarray(x)[group == g].mean(0) for g in present]) for x in (student, teacher)]
    both = [cosines(np.concatenate([c, x])) for c, x in zip(centres, (student, teacher), strict=True)]
    square, num = (both[0] - both[1]) ** 2, len(present)
    totals = {"prototypes": square[:num, :num].sum(), "entities": square[:num, num:].sum()}
    for level, total in totals.items():
        actual = htd.group_topology_loss(student, teacher, jnp.asarray(group), num_groups=7, level=level)
        assert actual == pytest.approx(total, rel=1e-4)


def test_repeated_entities_count_once_at_every_level(pair):
    student, teacher = pair
    ids = jnp.array([0, 1, 2, 2, 3, 1, 1, 4])
    group = jnp.array([0, 0, 0, 1, 1])
    weight = entities.inverse_counts(ids, jnp.ones(8, bool))
    args, repeated = (student[:5], teacher[:5], group), (student[ids], teacher[ids], group[ids])
    for loss in (
        htd.entity_topology_loss,
        lambda *a, **k: htd.group_topology_loss(*a, num_groups=2, **k),
        lambda *a, **k: htd.group_topology_loss(*a, num_groups=2, level="prototypes", **k),
    ):
        assert loss(*repeated, weight=weight) == pytest.approx(float(loss(*args)), rel=1e-4)


def test_only_the_prototype_level_has_a_gradient_through_prototypes(pair):
    student, teacher = pair
    group = jnp.zeros(N, jnp.int32).at[0].set(1)

    def loss(s, level):
        return htd.group_topology_loss(s, teacher, group, num_groups=2, level=level)

    assert jnp.abs(jax.grad(loss)(student, "prototypes")).max() > 1e-3
    # Against constants, entity i's pull does not depend on how entity j moves the mean.
    centre = htd.prototypes(student, group, num_groups=2, weight=jnp.ones(N))[0]
    fixed = jax.grad(
        lambda s: ((entities.normalize(centre) @ entities.normalize(s).T - _teacher_cosines(teacher, group)) ** 2).sum()
    )(student)
    np.testing.assert_allclose(jax.grad(loss)(student, "entities"), fixed, atol=1e-5)


def _teacher_cosines(teacher, group):
    centre = htd.prototypes(teacher, group, num_groups=2, weight=jnp.ones(N))[0]
    return entities.normalize(centre) @ entities.normalize(teacher).T


def test_groups_depend_on_the_teacher_and_give_the_gate_no_gradient(key, pair):
    student, teacher = pair
    params = experts.init_experts(key, num_experts=3, student_dim=D, teacher_dim=T)

    def loss(params):
        group = htd.assign_groups(params, teacher)
        inside = htd.entity_topology_loss(student, teacher, group)
        return inside + htd.group_topology_loss(student, teacher, group, num_groups=3)

    assert set(np.asarray(htd.assign_groups(params, teacher)).tolist()) <= {0, 1, 2}
    for leaf in jax.tree.leaves(jax.grad(loss)(params)):
        np.testing.assert_array_equal(leaf, 0.0)


def test_an_unknown_level_is_refused(pair):
    with pytest.raises(ValueError, match="level is 'both'; expected 'entities' or 'prototypes'"):
        htd.group_topology_loss(*pair, jnp.zeros(N, jnp.int32), num_groups=1, level="both")
