"""What it is worth to ask a language model about items: expected recall per number of questions, and per dollar.

    python -m experiments.value_of_questions --data released:PATH:Games --json games.json
    python -m experiments.value_of_questions --data prepared:PATH --numbers 100 500 --accuracies 1 0.5
    python -m experiments.value_of_questions --data prepared:PATH --store answers.sqlite

A question is "which of these items go before this new one". Nothing is sent: simulated teachers of stated
accuracy answer, which know titles and nothing else, and never validation or test sessions. Items that occur at most
--rare times in training are asked about, those first whose answers could change most traffic. Answers become rules "x,
then the item", whose weight is chosen on validation sessions; the test sessions are ranked once with it.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tabulate

from alkd_jax import paper_settings
from alkd_jax.checks import check_at_least
from alkd_jax.data import item_vectors
from alkd_jax.data.readers import registry
from alkd_jax.errors import printable
from alkd_jax.io import write_text
from alkd_jax.llm import presets, prompts
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.price_list import price_list

from .pipeline import light_options, options, question_value
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines, stage_bar
from .pipeline.llm_settings import check_titles
from .pipeline.question_value import BASES, ORDERS, Base, Study, check_numbers

HEADINGS = (
    "without asking",
    "candidates",
    "teacher",
    "questions",
    "chosen by",
    "dollars",
    "weight",
    "validation recall@10",
    "gain",
    "test recall@10",
    "gain",
    "test gain per dollar",
)


@dataclasses.dataclass(frozen=True)
class Value:
    """The options of the command.

    Attributes:
        numbers: numbers of questions, at most as many as have a value above 0.
        accuracies: shares of answers that the simulated teachers give by what they know; the others are random.
        rare: items that occur at most so often in the training sessions are asked about.
        shown: number of items that a question shows.
        named: number of items that an answer names at most.
        model: whose list price the questions are priced by.
        encoder: file of an encoder's vectors of the titles (.npz), for a teacher that knows these.
        store: file with answers of a language model, as `ask_items` or `alkd.llm.items_before(..., store=FILE)` keeps
            them, which are then measured too.
        seed: of random orders and simulated errors.
        json: file that the numbers are written to.
    """

    data: options.Data
    numbers: tuple[int, ...] = (100, 500, 5000)
    accuracies: tuple[float, ...] = (1.0, 0.5)
    rare: int = 0
    shown: int = 30
    named: int = 10
    model: str = "gpt-4.1-mini"
    prices: light_options.PricesFile = None
    encoder: pathlib.Path | None = None
    store: pathlib.Path | None = None
    seed: int = 0
    json: pathlib.Path | None = None


def measure(args: Value) -> dict[str, Any]:
    """Returns the numbers that the command prints.

    Raises:
        ValueError: an option is out of range, the data have no titles, or the model has no known price.
    """
    check_numbers(args.numbers, args.accuracies)
    check_at_least(0, **{"--rare": args.rare, "--seed": args.seed})
    listed = price_list([] if args.prices is None else [args.prices])
    if args.model not in listed:
        raise ValueError(f"--model is {args.model!r}, whose price is not known; expected --prices FILE with it")
    dataset = registry.read(args.data)
    check_titles(dataset)
    vectors = None if args.encoder is None else item_vectors.read_vectors(args.encoder, dataset.num_items)
    template = prompts.TEMPLATES[paper_settings.settings_of(dataset.name).prompt_template]
    preset = presets.resolve("openai:")
    endpoint = Endpoint(preset.base_url, args.model, api_key_env=preset.api_key_env)
    studies = {
        among: Study(dataset, args.rare, among, args.shown, args.named, args.seed) for among in question_value.AMONG
    }
    plans = list(_plans(args, {among: int((study.values > 0).sum()) for among, study in studies.items()}))
    bases = {name: Base(studies[question_value.AMONG[0]], name) for name in BASES}
    answers = functools.lru_cache(lambda among, teacher, share: studies[among].answers(teacher, share, vectors))
    rows = []
    with stage_bar("answers", total=len(plans)) as bar:
        for done, plan in enumerate(plans):
            bar.update(done)
            study = studies[plan["candidates"]]
            chosen = study.order(plan["order"], plan["questions"])
            price = study.dollars(chosen, template, endpoint, listed[args.model].price)
            given = answers(plan["candidates"], plan["teacher"], plan["accuracy"]).take(np.sort(chosen))
            rows.append(plan | {"dollars": round(price, 6)} | bases[plan["base"]].worth(given))
    rows += [] if args.store is None else list(_stored_rows(args.store, bases))
    study = studies[question_value.AMONG[0]]
    return {
        "dataset": dataset.name,
        "model": args.model,
        "rare": args.rare,
        "items": len(study.asked),
        "unseen": int((study.counts.popularity[1:] == 0).sum()),
        "recall@10 without asking": {
            name: {split: round(float((ranks <= 10).mean()), 6) for split, ranks in base.base_ranks.items()}
            for name, base in bases.items()
        },
        "rows": rows,
    }


def _stored_rows(store: pathlib.Path, bases: Mapping[str, Base]) -> Iterator[dict[str, Any]]:
    """Yields what the answers in a store are worth, by model."""
    for model, (given, dollars) in question_value.stored_answers(store).items():
        row = {"candidates": "stored", "teacher": model, "accuracy": None, "questions": len(given), "order": "stored"}
        for name, base in bases.items():
            yield {"base": name} | row | {"dollars": round(dollars, 6)} | base.worth(given)


def _plans(args: Value, most: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yields what is asked in each row.

    Errors, and other orders than by value, are tried where little else is different: over counts, among known items.

    Args:
        args: the options.
        most: candidates → the number of questions that have a value.
    """
    teachers = ("tf-idf",) if args.encoder is None else ("tf-idf", "encoder")
    for among, base, teacher in itertools.product(question_value.AMONG, BASES, teachers):
        is_first = (among, base) == (question_value.AMONG[0], "counts")
        numbers = sorted({min(number, most[among]) for number in args.numbers})
        for accuracy, order in itertools.product(args.accuracies if is_first else args.accuracies[:1], ORDERS):
            is_plain = teacher == "tf-idf" and accuracy == args.accuracies[0]
            if order == ORDERS[0] or (is_first and is_plain):
                for number in numbers:
                    row: dict[str, Any] = {"base": base, "candidates": among, "teacher": teacher, "accuracy": accuracy}
                    yield row | {"questions": number, "order": order}


def table_rows(result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of the table, beginning with those of students that asked nothing."""
    rows = [
        [name, "", "", "0", "", "0", "", f"{recall['validation']:.4f}", "", f"{recall['test']:.4f}", "", ""]
        for name, recall in result["recall@10 without asking"].items()
    ]
    for row in result["rows"]:
        validation, test = row["validation"], row["test"]
        rows.append(
            [
                row["base"],
                row["candidates"],
                row["teacher"] if row["accuracy"] is None else f"{row['teacher']}, {row['accuracy']:.0%}",
                f"{row['questions']:,}",
                row["order"],
                f"{row['dollars']:.2f}",
                f"{row['weight']:g}",
                f"{validation['recall@10']:.4f}",
                f"{validation['gain']:+.4f} ± {validation['error']:.4f}",
                f"{test['recall@10']:.4f}",
                f"{test['gain']:+.4f} ± {test['error']:.4f}",
                f"{test['gain'] / row['dollars']:+.4f}" if row["dollars"] else "",
            ]
        )
    return rows


def as_markdown(result: dict[str, Any]) -> str:
    """Returns the table as Markdown."""
    return tabulate.tabulate(table_rows(result), HEADINGS, tablefmt="github", disable_numparse=True)


def as_json(result: dict[str, Any]) -> str:
    """Returns the numbers as JSON, a line for each row."""
    rows = ",\n".join(f"  {json.dumps(row)}" for row in result["rows"])
    head = json.dumps({name: value for name, value in result.items() if name != "rows"})
    return f'{head[:-1]}, "rows": [\n{rows}\n]}}\n'


def main() -> None:
    """Entry point."""
    with cli_errors():
        args = parse(Value, "value_of_questions", __doc__)
        result = measure(args)
        if args.json is not None:
            write_text(args.json, as_json(result))
        name, asked = printable(result["dataset"]), result["items"]
        print_line(f"{name}: {asked:,} items occur at most {args.rare} times in training, {result['unseen']:,} never")
        print_lines(tabulate.tabulate(table_rows(result), HEADINGS, disable_numparse=True))


if __name__ == "__main__":
    main()
