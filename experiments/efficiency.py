"""The cost of a finished run: parameters, bytes, time to recommend, time to train, and the price of the LLM's lists.

    python -m experiments.efficiency --run runs/ml-fpmc --prompt-tokens 1200 --answer-tokens 150

The price of the lists is computed from the price list of language models, for the selected sessions and for all.
"""

import dataclasses
import statistics
import time
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import tabulate

from alkd_jax import scoring
from alkd_jax.checks import check_count, check_one_of
from alkd_jax.io import write_json
from alkd_jax.llm.price_list import price_list
from alkd_jax.types import Sessions

from .pipeline import light_options, options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines
from .pipeline.methods import role_of, stage_of, trained_methods
from .pipeline.run import first_seed
from .pipeline.stages import Run
from .pipeline.teachers import title_of

HEADINGS = ("model", "width", "parameters", "nonzero", "bytes", "µs per session", "seconds to train")


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """The options of the command.

    Attributes:
        model: language model whose price is used; by default the authors', which its provider has retired since.
        rounds: number of timings of every model, of which the median is reported.
    """

    run: light_options.RunFolder
    model: str = "gpt-4-turbo-2024-04-09"
    prices: light_options.PricesFile = None
    prompt_tokens: options.PromptTokens = 1270
    answer_tokens: options.AnswerTokens = 150
    rounds: int = 20


def measure(args: Efficiency) -> dict[str, Any]:
    """Counts the parameters of every trained model of a run, measures its time, and computes the price of the lists.

    Returns:
        ``{"models": {METHOD: {"width", "parameters", "nonzero", "bytes", "us_per_session", "train_s"}},
        "lists", "language_model", "dollars_for_sessions": {NUMBER OF SESSIONS: dollars}}``: "lists" says whose lists
        the run has, and the dollars are what this language model would cost for that number of sessions.

    Raises:
        ValueError: the run is not finished, the price of the language model is unknown, or a number is too small.
    """
    listed = price_list([] if args.prices is None else [args.prices])
    check_one_of("--model", args.model, listed)
    tokens = {"--prompt-tokens": args.prompt_tokens, "--answer-tokens": args.answer_tokens}
    check_count(0, **tokens)
    check_count(1, **{"--rounds": args.rounds})
    run = Run.reopen_finished(args.run)
    seconds = {name: stage["seconds"] for name, stage in run.folder.finished_stages.items()}
    models = {}
    for method, stored_at in trained_methods(run.settings.method_names).items():
        model, params = run.model(role_of(method)), first_seed(run.params(stored_at))
        leaves = jax.tree.leaves(params)
        stage = stored_at if stored_at in seconds else stage_of(method)
        models[method] = {
            "width": model.dim,
            "parameters": sum(leaf.size for leaf in leaves),
            "nonzero": sum(int(jnp.count_nonzero(leaf)) for leaf in leaves),
            "bytes": sum(leaf.nbytes for leaf in leaves),
            "us_per_session": 1e6 * time_to_recommend(run.split("test"), model, params, args.rounds),
            "train_s": seconds[stage],
        }
    price = listed[args.model].price
    dollars = (price.input * args.prompt_tokens + price.output * args.answer_tokens) / 10**6
    total = {str(number): str(dollars * number) for number in (run.settings.resolved_budget, len(run.dataset.train))}
    lists = title_of(run.settings.resolved_teacher)
    return {"models": models, "lists": lists, "language_model": args.model, "dollars_for_sessions": total}


def time_to_recommend(sessions: Sessions, model: Any, params: Any, rounds: int) -> float:
    """Returns the seconds per session for the ten best items, in batches of 256 sessions, without compilation."""
    rows = jnp.arange(min(256, len(sessions)))
    items, mask = jnp.asarray(sessions.items)[rows], jnp.asarray(sessions.mask)[rows]

    @jax.jit
    def recommend(params: Any) -> jax.Array:
        table = model.apply(params, method="item_embeddings")
        return scoring.top_k(model.apply(params, items, mask), table, 10, exclude=items)[1]

    recommend(params).block_until_ready()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        recommend(params).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / len(rows)


def main() -> None:
    """Runs the command."""
    with cli_errors():
        args = parse(Efficiency, "efficiency", __doc__)
        costs = measure(args)
        write_json(args.run / "efficiency.json", costs)
        rows = [
            [
                name,
                m["width"],
                *(f"{m[count]:,}" for count in ("parameters", "nonzero", "bytes")),
                f"{m['us_per_session']:.1f}",
                m["train_s"],
            ]
            for name, m in costs["models"].items()
        ]
        print_lines(tabulate.tabulate(rows, HEADINGS, disable_numparse=True))
        print_line(f"this run: {costs['lists']}; at list price a language model would cost:")
        for number, dollars in costs["dollars_for_sessions"].items():
            print_line(f"{args.model} for {int(number):,} sessions: {Decimal(dollars):.2f} dollars")
        print_line(f"{args.run}/efficiency.json")


if __name__ == "__main__":
    main()
