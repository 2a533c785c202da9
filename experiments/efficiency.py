"""What a finished run costs: parameters, bytes, time to recommend, time to train, and money for the lists.

    python -m experiments.efficiency --run runs/ml-fpmc --prompt-tokens 1200 --answer-tokens 150

The language model's bill is worked out for the sessions that were asked about, and for all, from the price list.
"""

import dataclasses
import pathlib
import statistics
import time
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import tabulate
import tyro

from alkd_jax import scoring
from alkd_jax.io import write_json
from alkd_jax.llm.pricing import PRICES
from alkd_jax.types import Sessions

from .pipeline.methods import role_of, trained_methods
from .pipeline.run import first_seed
from .pipeline.stages import Run
from .reporting.console import cli_errors, console

HEADINGS = ("model", "width", "parameters", "not 0", "bytes", "µs a session", "seconds to train")


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """What is to be counted.

    Attributes:
        run: a finished run's folder.
        model: the language model whose price is taken.
        prompt_tokens: of one question; by default the paper's account, 8.6 dollars for 500.
        answer_tokens: of one answer.
        rounds: timings of every model; the median counts.
    """

    run: pathlib.Path
    model: str = "gpt-4-turbo-2024-04-09"
    prompt_tokens: int = 1270
    answer_tokens: int = 150
    rounds: int = 20


def account(asked: Efficiency) -> dict[str, Any]:
    """Counts and times every trained model of a run, and prices the lists.

    Raises:
        ValueError: the run is not finished, or the model's price is not known.
    """
    if asked.model not in PRICES:
        raise ValueError(f"--model is {asked.model!r}, of no known price; expected one of {', '.join(PRICES)}")
    run = Run.reopen(asked.run, readonly=True)
    seconds = {name: hop["seconds"] for name, hop in run.folder.stages.items()}
    if "ranks" not in seconds:
        raise ValueError(f"{asked.run} is not finished; run experiments.reproduce on it first")
    models = {}
    for method, place in trained_methods(run.settings.asked_methods).items():
        model, params = run.model(role_of(method)), first_seed(run.params(place))
        leaves = jax.tree.leaves(params)
        hop = place if place in seconds else f"distil-{method}"
        models[method] = {
            "width": model.dim,
            "parameters": sum(leaf.size for leaf in leaves),
            "nonzero": sum(int(jnp.count_nonzero(leaf)) for leaf in leaves),
            "bytes": sum(leaf.nbytes for leaf in leaves),
            "us_per_session": 1e6 * time_to_recommend(run.split("test"), model, params, asked.rounds),
            "train_s": seconds[hop],
        }
    price = PRICES[asked.model]
    one = (price.input * asked.prompt_tokens + price.output * asked.answer_tokens) / 10**6
    bill = {str(number): str(one * number) for number in (run.settings.num_asked, len(run.dataset.train))}
    return {"models": models, "language_model": asked.model, "dollars_for_sessions": bill}


def time_to_recommend(sessions: Sessions, model: Any, params: Any, rounds: int) -> float:
    """Seconds a session for the ten best items, 256 sessions at a time, compiled before."""
    rows = jnp.arange(min(256, len(sessions)))
    items, mask = jnp.asarray(sessions.items)[rows], jnp.asarray(sessions.mask)[rows]

    @jax.jit
    def recommend(params: Any) -> jax.Array:
        table = model.apply(params, method="item_embeddings")
        return scoring.top_k(model.apply(params, items, mask), table, 10, exclude=items)[1]

    recommend(params).block_until_ready()
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        recommend(params).block_until_ready()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) / len(rows)


def main() -> None:
    """Entry point."""
    with cli_errors():
        asked = tyro.cli(Efficiency, description=__doc__)
        counted = account(asked)
        write_json(asked.run / "efficiency.json", counted)
        rows = [
            [
                name,
                m["width"],
                *(f"{m[count]:,}" for count in ("parameters", "nonzero", "bytes")),
                f"{m['us_per_session']:.1f}",
                m["train_s"],
            ]
            for name, m in counted["models"].items()
        ]
        console.print(tabulate.tabulate(rows, HEADINGS, disable_numparse=True), highlight=False, markup=False)
        for number, money in counted["dollars_for_sessions"].items():
            told = f"{asked.model} for {int(number):,} sessions: {Decimal(money):.2f} dollars"
            console.print(told, highlight=False, markup=False)
        console.print(f"{asked.run}/efficiency.json", highlight=False, markup=False)


if __name__ == "__main__":
    main()
