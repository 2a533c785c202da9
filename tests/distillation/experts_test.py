"""Distillation experts: counts, the gate's limits, and that a linear teacher can be reconstructed without error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alkd_jax.distillation import entities, experts

D, T, E = 10, 100, 5


def random_case(key, num=12, teacher_dim=T, num_experts=E):
    keys = jax.random.split(key, 4)
    params = experts.init_experts(keys[0], num_experts=num_experts, student_dim=D, teacher_dim=teacher_dim)
    student = jax.random.normal(keys[1], (num, D))
    teacher = jax.random.normal(keys[2], (num, teacher_dim))
    return params, student, teacher, jax.random.gumbel(keys[3], (num, num_experts))


@pytest.mark.parametrize(
    ("widths", "in_experts", "in_gates"), [((20, 200), 1_470_600, 12_060), ((10, 100), 372_300, 6_060)]
)
def test_two_sets_of_thirty_experts_have_the_number_of_parameters_that_the_authors_logged(
    key, widths, in_experts, in_gates
):
    params = experts.init_experts(key, num_experts=30, student_dim=widths[0], teacher_dim=widths[1])
    sizes = {name: 2 * leaf.size for name, leaf in params.items()}
    gates = sizes["gate_kernel"] + sizes["gate_bias"]
    assert (sum(sizes.values()) - gates, gates) == (in_experts, in_gates)


def test_equal_widths_halve_the_hidden_layer(key):
    params = experts.init_experts(key, num_experts=1, student_dim=8, teacher_dim=8)
    assert params["hidden_kernel"].shape == (1, 8, 4)


def test_no_experts_are_refused(key):
    with pytest.raises(ValueError, match="num_experts is 0"):
        experts.init_experts(key, num_experts=0, student_dim=2, teacher_dim=4)


def test_errors_equal_a_loop_over_entities_and_experts(key):
    params, student, teacher, noise = random_case(key)
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    errors = experts.reconstruction_errors(jax.tree.map(jnp.float32, params), student, teacher, noise, 0.7)
    for n, (s, t, g) in enumerate(zip(*map(np.float64, (student, teacher, noise)), strict=True)):
        alpha = np.exp(params["gate_kernel"].T @ t + params["gate_bias"])
        choice = np.exp((np.log(alpha / alpha.sum() + 1e-10) + g) / 0.7)
        reconstructed = np.zeros(T)
        for k, share in enumerate(choice / choice.sum()):
            hidden = np.maximum(params["hidden_kernel"][k].T @ s + params["hidden_bias"][k], 0)
            reconstructed += share * (params["out_kernel"][k].T @ hidden + params["out_bias"][k])
        assert errors[n] == pytest.approx(((t - reconstructed) ** 2).sum(), rel=1e-5)


def test_a_linear_teacher_is_reconstructed_without_error(key):
    params, student, _, noise = random_case(key)
    matrix = jax.random.normal(jax.random.key(9), (D, T))
    hidden = params["hidden_kernel"].shape[2]
    fan = jnp.concatenate([jnp.eye(D), -jnp.eye(D), jnp.zeros((D, hidden - 2 * D))], axis=1)
    back = jnp.concatenate([matrix, -matrix, jnp.zeros((hidden - 2 * D, T))])
    exact = params | {
        "hidden_kernel": jnp.broadcast_to(fan, (E, D, hidden)),
        "hidden_bias": jnp.zeros((E, hidden)),
        "out_kernel": jnp.broadcast_to(back, (E, hidden, T)),
        "out_bias": jnp.zeros((E, T)),
    }
    errors = experts.reconstruction_errors(exact, student, student @ matrix, noise, 1.0)
    np.testing.assert_allclose(errors, 0.0, atol=1e-9)


def test_with_identical_experts_gate_noise_and_temperature_have_no_effect(key):
    params, student, teacher, noise = random_case(key)
    same = {n: leaf if n.startswith("gate") else jnp.broadcast_to(leaf[:1], leaf.shape) for n, leaf in params.items()}

    def loss(params, noise, temperature):
        return experts.reconstruction_errors(params, student, teacher, noise, temperature).sum()

    value, gradient = jax.value_and_grad(loss)(same, noise, 1.0)
    assert loss(same, -3 * noise, 0.2) == pytest.approx(float(value), rel=1e-5)
    assert jnp.abs(gradient["gate_kernel"]).max() < 1e-4 * jnp.abs(gradient["out_kernel"]).max()


def test_with_one_expert_the_noise_has_no_effect(key):
    params, student, teacher, noise = random_case(key, num_experts=1)
    one = experts.reconstruction_errors(params, student, teacher, noise, 0.3)
    np.testing.assert_array_equal(one, experts.reconstruction_errors(params, student, teacher, 5 - noise, 0.3))


def test_gumbel_softmax_is_uniform_at_high_and_a_sample_at_low_temperature():
    log_prob = jnp.log(jnp.array([[0.6, 0.3, 0.1]]))
    noise = jax.random.gumbel(jax.random.key(3), (40_000, 3))
    many = jnp.broadcast_to(log_prob, noise.shape)
    np.testing.assert_allclose(experts.gumbel_softmax(many[:5], noise[:5], 1e6), 1 / 3, atol=1e-4)
    cold = experts.gumbel_softmax(many, noise, 1e-7)
    np.testing.assert_array_equal(jnp.argmax(cold, 1), jnp.argmax(many + noise, 1))
    np.testing.assert_allclose(cold.max(1), 1.0, atol=1e-3)
    np.testing.assert_allclose(cold.mean(0), [0.6, 0.3, 0.1], atol=0.01)


def test_the_teacher_gets_no_gradient_and_experts_and_student_do(key):
    params, student, teacher, noise = random_case(key)
    pull = jax.grad(lambda t: experts.reconstruction_errors(params, student, t, noise, 1.0).sum())(teacher)
    np.testing.assert_array_equal(pull, 0.0)
    both = jax.grad(lambda m, s: experts.reconstruction_errors(m, s, teacher, noise, 1.0).sum(), (0, 1))(
        params, student
    )
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(both))


def test_the_temperature_falls_tenfold_each_tenth_of_training_down_to_its_floor():
    steps = [experts.annealed_temperature(s, 1e-10, total=1000) for s in (0, 100, 150, 500, 1000)]
    np.testing.assert_allclose(steps, [1.0, 0.1, 10**-1.5, 0.01, 0.01], rtol=1e-5)
    assert experts.annealed_temperature(1000, 1e-10, total=1000, floor=0.0) == pytest.approx(1e-10, rel=1e-3)


def test_inverse_counts_weight_equal_ids_as_one():
    ids = jnp.array([4, 2, 4, 4, 7])
    valid = jnp.array([True, True, True, False, True])
    np.testing.assert_allclose(entities.inverse_counts(ids, valid), [0.5, 1, 0.5, 0, 1])
