"""How far a run's differences are known over seeds and sessions together, and how many seeds more would settle.

    python -m experiments.power --run runs/ml-fpmc --against Random HTD "Co-occurrence lists"

The test sessions are one sample. The validation sessions are a second one, by which training stopped and on which the
trained models are ranked again. The command prints a line for each pair and sample, and writes `power.json` and
`power.md` in the run's folder.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import tabulate

from alkd_jax.checks import check_at_least, check_count
from alkd_jax.errors import markdown
from alkd_jax.evaluation.seeds_and_sessions import Spread, spread
from alkd_jax.io import finite_or_none, to_json, write_json, write_texts

from .pipeline import light_options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines
from .pipeline.methods import trained_methods
from .pipeline.ranked_samples import over_seeds, stored_test_ranks, validation_ranks
from .pipeline.rules import mode_of
from .pipeline.stages import Run

STORED = pathlib.Path(__file__).with_name("results") / "power"
"""The folder of the stored results, which a wheel does not have."""

HEADINGS = (
    "difference",
    "sessions",
    "mean",
    "95 % over seeds and sessions",
    "95 % over seeds",
    "sd of seed means",
    "seeds for ±{width:g}",
    "detectable",
)
NOTE = (
    "The interval over seeds and sessions is that of a two-way analysis of variance with random seeds and sessions and "
    "Satterthwaite's degrees of freedom; the one over seeds is Student's. Seeds for a width: the number with which the "
    "interval over seeds would have it, by the spread of these seeds. Detectable: the smallest true difference that a "
    "test over seeds and sessions finds in four of five studies of this size."
)


@dataclasses.dataclass(frozen=True)
class Power:
    """The options of the command.

    Attributes:
        method: the method whose differences from the others are estimated.
        against: the other trained methods; by default all of the run.
        metric: recall@K, ndcg@K, mrr@K or mrr.
        half_width: of the interval over seeds for which the number of seeds is computed.
        json: also write the numbers to this file.
    """

    run: light_options.RunFolder
    method: str = "ALKDRec"
    against: tuple[str, ...] = ()
    metric: str = "recall@10"
    half_width: float = 0.0008
    json: pathlib.Path | None = None


def estimate(args: Power) -> dict[str, Any]:
    """Estimates the differences of a finished run.

    Returns:
        ``{"dataset", "backbone", "mode", "protocol", "metric", "half_width", "means", "differences": [...]}``; means
        are sample → method → "mean" and "sd" over seeds, and a difference has
        "method", "against", "split", the fields of :class:`Spread`, "seeds_for_half_width" and "detectable".

    Raises:
        ValueError: the run is not finished or has one seed, a method is not of the run, or a number is out of range.
    """
    check_at_least(1e-9, **{"--half-width": args.half_width})
    run = Run.reopen_finished(args.run)
    check_count(2, **{"--seeds of the run": run.settings.seeds})
    trained = trained_methods(run.settings.method_names)
    others = args.against or tuple(name for name in trained if name != args.method)
    for name in (args.method, *others):
        if name not in trained:
            raise ValueError(f"{name!r} is no trained method of {args.run}; expected one of {', '.join(trained)}")
    samples = {"test": stored_test_ranks(run), "validation": validation_ranks(run, (args.method, *others))}
    differences = []
    for other in others:
        for split, (ranks, session_id) in samples.items():
            found = spread(ranks[args.method], ranks[other], session_id=session_id, metric=args.metric)
            differences.append({"method": args.method, "against": other, "split": split} | as_record(found, args))
    identity: dict[str, Any] = {
        "dataset": run.dataset.name,
        "backbone": run.settings.backbone,
        "mode": mode_of(run.settings.rules),
    }
    identity |= {"protocol": run.settings.protocol.name, "metric": args.metric, "half_width": args.half_width}
    identity["means"] = {
        split: {name: over_seeds(ranks[name], args.metric) for name in (args.method, *others)}
        for split, (ranks, _) in samples.items()
    }
    return identity | {"differences": finite_or_none(differences)}


def as_record(found: Spread, args: Power) -> dict[str, Any]:
    """Returns the estimate as plain values, with the number of seeds and the detectable difference."""
    seeds = found.seeds_for(args.half_width)
    return dataclasses.asdict(found) | {"seeds_for_half_width": seeds, "detectable": found.detectable()}


def power_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the headings and the rows of the table of :func:`estimate`'s result."""
    rows = [
        [
            f"{found['method']} − {found['against']}",
            f"{found['num_sessions']:,} {found['split']}",
            f"{found['difference']:+.4f}",
            "{:+.4f} to {:+.4f}".format(*found["interval"]),
            "{:+.4f} to {:+.4f}".format(*found["interval_seeds"]),
            f"{found['sd_seed_means']:.4f}",
            "" if found["seeds_for_half_width"] is None else f"{found['seeds_for_half_width']:,}",
            f"{found['detectable']:.4f}",
        ]
        for found in result["differences"]
    ]
    return [heading.format(width=result["half_width"]) for heading in HEADINGS], rows


def as_table(result: Mapping[str, Any]) -> str:
    """Returns the table with what it is about, as Markdown."""
    headings, rows = power_rows(result)
    rows = [[markdown(row[0]), *row[1:]] for row in rows]
    seeds = result["differences"][0]["num_seeds"]
    about = f"{markdown(result['dataset'])}, {markdown(result['backbone'])}, {result['mode']} mode, {seeds} seeds"
    table = tabulate.tabulate(rows, headings, tablefmt="github", disable_numparse=True)
    means = [
        f"{split} sessions: "
        + ", ".join(f"{markdown(name)} {of['mean']:.4f} ± {of['sd']:.4f}" for name, of in methods.items())
        for split, methods in result["means"].items()
    ]
    return f"{about}: {result['metric']}. Protocol: {result['protocol']}.\n\n{table}\n\nOver seeds, {'; '.join(means)}."


def as_page(result: Mapping[str, Any]) -> str:
    """Returns the table and what its columns mean, as Markdown."""
    return f"{as_table(result)}\n\n{NOTE}\n"


def main() -> None:
    """Entry point."""
    with cli_errors():
        args = parse(Power, "power", __doc__)
        result = estimate(args)
        write_texts({args.run / "power.json": to_json(result), args.run / "power.md": as_page(result)})
        headings, rows = power_rows(result)
        print_lines(tabulate.tabulate(rows, headings, disable_numparse=True))
        print_line(f"{args.run}/power.json, .md")
        if args.json is not None:
            write_json(args.json, result)
            print_line(str(args.json))


if __name__ == "__main__":
    main()
