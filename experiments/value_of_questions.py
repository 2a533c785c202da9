"""What it is worth to ask a language model about items: expected recall per number of questions, and per dollar.

    python -m experiments.value_of_questions --data released:PATH:Games --json games.json
    python -m experiments.value_of_questions --data prepared:PATH --numbers 100 500 --accuracies 1 0.5

A question is "which of these known items go before this new one". Nothing is sent: simulated teachers of stated
accuracy answer, which know titles and nothing else, and never validation or test sessions. Items that occur at most
--rare times in training are asked about, those first whose answers could change most traffic. Answers become rules "x,
then the item", whose weight is chosen on validation sessions; the test sessions are ranked once with it.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
import tabulate

from alkd_jax import paper_settings
from alkd_jax.checks import check_at_least
from alkd_jax.data.readers import registry
from alkd_jax.distillation import item_rules
from alkd_jax.errors import printable
from alkd_jax.io import write_text
from alkd_jax.llm import presets, prompts
from alkd_jax.llm.endpoint import Endpoint
from alkd_jax.llm.price_list import price_list

from .pipeline import light_options, options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines, stage_bar
from .pipeline.llm_settings import check_titles
from .pipeline.question_value import BASES, ORDERS, Base, Study, check_numbers

HEADINGS = (
    "without asking",
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
        numbers: numbers of questions; all questions of a value above 0 are always asked, too.
        accuracies: shares of answers that the simulated teachers give by what they know; the others are random.
        rare: items that occur at most so often in the training sessions are asked about.
        shown: number of known items that a question shows.
        named: number of items that an answer names at most.
        model: whose list price the questions are priced by.
        encoder: file of an encoder's vectors of the titles (.npz), for a teacher that knows these.
        seed: of random orders and simulated errors.
        json: file that the numbers are written to.
    """

    data: options.Data
    numbers: tuple[int, ...] = (100, 500, 5000)
    accuracies: tuple[float, ...] = (1.0, 0.5)
    rare: int = 1
    shown: int = 30
    named: int = 10
    model: str = "gpt-4.1-mini"
    prices: light_options.PricesFile = None
    encoder: pathlib.Path | None = None
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
    study = Study(dataset, args.rare, args.shown, args.named, args.seed)
    vectors = None if args.encoder is None else item_rules.read_vectors(args.encoder, dataset.num_items)
    template = prompts.TEMPLATES[paper_settings.settings_of(dataset.name).prompt_template]
    preset = presets.resolve("openai:")
    endpoint = Endpoint(preset.base_url, args.model, api_key_env=preset.api_key_env)
    most = int((study.values > 0).sum())
    numbers = sorted({min(number, most) for number in args.numbers} | {most})
    knowing = {"tf-idf": None} | ({} if vectors is None else {"encoder": vectors})
    answers = {
        (teacher, accuracy): study.answers(teacher, accuracy, of_titles)
        for teacher, of_titles in knowing.items()
        for accuracy in args.accuracies
    }
    plans = [(base, *asked, number, order) for base in BASES for asked in answers for number, order in _plan(numbers)]
    price, rows = listed[args.model].price, []
    bases = {name: Base(study, name) for name in BASES}
    with stage_bar("answers", total=len(plans)) as bar:
        for done, (base, teacher, accuracy, number, order) in enumerate(plans):
            bar.update(done)
            chosen = study.order(order, number)
            row: dict[str, Any] = {"base": base, "teacher": teacher, "accuracy": accuracy, "questions": number}
            row |= {"order": order, "dollars": round(study.dollars(chosen, template, endpoint, price), 6)}
            rows.append(row | bases[base].worth(answers[teacher, accuracy].take(np.sort(chosen))))
    before = {
        name: {split: round(float((ranks <= 10).mean()), 6) for split, ranks in bases[name].base_ranks.items()}
        for name in BASES
    }
    unseen = int((study.counts.popularity[1:] == 0).sum())
    return {
        "dataset": dataset.name,
        "model": args.model,
        "rare": args.rare,
        "items": len(study.asked),
        "unseen": unseen,
        "recall@10 without asking": before,
        "rows": rows,
    }


def _plan(numbers: list[int]) -> list[tuple[int, str]]:
    """Returns the numbers of questions and the order in which they are chosen; all of them are in no order."""
    return [(number, order) for number in numbers[:-1] for order in ORDERS] + [(numbers[-1], ORDERS[0])]


def table_rows(result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of the table, beginning with those of students that asked nothing."""
    rows = [
        [name, "", "0", "", "0", "", f"{recall['validation']:.4f}", "", f"{recall['test']:.4f}", "", ""]
        for name, recall in result["recall@10 without asking"].items()
    ]
    for row in result["rows"]:
        validation, test = row["validation"], row["test"]
        rows.append(
            [
                row["base"],
                f"{row['teacher']}, {row['accuracy']:.0%}",
                f"{row['questions']:,}",
                row["order"],
                f"{row['dollars']:.2f}",
                f"{row['weight']:g}",
                f"{validation['recall@10']:.4f}",
                f"{validation['gain']:+.4f} ± {validation['error']:.4f}",
                f"{test['recall@10']:.4f}",
                f"{test['gain']:+.4f} ± {test['error']:.4f}",
                f"{test['gain'] / row['dollars']:+.4f}",
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
