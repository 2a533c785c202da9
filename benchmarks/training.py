"""Training throughput: seeds in one program against seeds one after the other, for FPMC at both widths.

python -m benchmarks.training --json FILE
"""

import jax
import numpy as np
import optax
import tyro

import alkd_jax as alkd
from alkd_jax import training
from benchmarks.harness import Bench, compare


def random_sessions(num_sessions: int, num_items: int, *, seed: int = 0, length: int = 10) -> alkd.Sessions:
    """Sessions of 4 to `length` items whose popularity falls off as one over the rank, as real ones do."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, num_items + 1)
    drawn = rng.choice(num_items, (num_sessions, length + 1), p=share / share.sum()).astype(np.int32) + 1
    mask = np.arange(length) < rng.integers(4, length + 1, num_sessions)[:, None]
    items = np.where(mask, drawn[:, :length], alkd.PAD)
    return alkd.Sessions(items, mask, drawn[:, length], np.arange(num_sessions, dtype=np.int32))


def main(bench: Bench) -> None:
    """Measures 40 steps of training with 2 validations, compiled before."""
    num_sessions, num_items, seeds = (300, 200, 2) if bench.toy else (7_393, 8_475, 5)
    train = random_sessions(num_sessions, num_items)
    validation = random_sessions(num_sessions // 3, num_items, seed=1)
    optimizer = optax.adam(1e-3)
    for dim in (10, 100):
        model = alkd.models.create("fpmc", num_items=num_items, dim=dim)

        def fit(numbers: list[int], model: alkd.models.Encoder = model) -> alkd.models.Params:
            options = {"steps_per_validation": 20, "max_steps": 40, "optimizer": optimizer}
            return training.fit(jax.random.key(0), model, train, validation, seeds=numbers, **options).params

        candidates = {
            "one by one": lambda fit=fit: [fit([seed]) for seed in range(seeds)],
            "one program": lambda fit=fit: fit(list(range(seeds))),
        }
        compare("training", candidates, bench, backbone="fpmc", dim=dim, seeds=seeds, items=num_items)


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
