"""Compares losses of the LLM's lists and selections of its sessions: finished runs that differ only in `--list-loss`.

    python -m experiments.list_losses --runs runs/bpr runs/ranknet runs/listnet --json list_losses.json

Each pair of a loss and a method is compared with the paper's loss and the method Random on the validation sessions,
over seeds and sessions together. Of the pairs that pass a false-discovery rate, at most `--contrasts` with the largest
gains are tested on the test sessions, with Holm's correction. No other number of the test is read.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from scipy import stats

from alkd_jax.checks import check_between, check_count
from alkd_jax.evaluation import significance
from alkd_jax.evaluation.seeds_and_sessions import Spread, spread
from alkd_jax.io import finite_or_none, write_json

from .pipeline import light_options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line, print_lines
from .pipeline.methods import METHODS, reads_list_loss
from .pipeline.ranked_samples import over_seeds, stored_test_ranks, validation_ranks
from .pipeline.stages import Run
from .reporting import list_loss_rows

BASE = ("bpr", "Random")
"""The loss and the method that all others are compared with."""

_FREE = ("out", "list_loss", "overwrite", "profile", "tracker", "methods")
"""Settings in which the runs may differ."""


@dataclasses.dataclass(frozen=True)
class ListLosses:
    """The options of the command.

    Attributes:
        metric: recall@K, ndcg@K, mrr@K or mrr.
        false_discovery: share of false findings allowed among the pairs found on validation, after Benjamini and
            Hochberg.
        contrasts: the largest number of pairs tested on the test sessions.
        json: also write the numbers to this file.
    """

    runs: Annotated[tuple[pathlib.Path, ...], light_options.described("folders of finished runs.", "FOLDER ...")]
    metric: str = "recall@10"
    false_discovery: float = 0.1
    contrasts: int = 6
    json: pathlib.Path | None = None

    def check(self) -> None:
        """Raises ValueError where an option is out of range."""
        check_between(0, 1, **{"--false-discovery": self.false_discovery})
        check_count(1, **{"--contrasts": self.contrasts})
        check_count(2, **{"number of --runs": len(self.runs)})


def opened_runs(folders: Sequence[pathlib.Path]) -> dict[str, Run]:
    """Opens the runs, which must differ in the loss and in nothing else that changes a student.

    Returns:
        Loss → its run.

    Raises:
        ValueError: a run is not finished, two have the same loss, other settings differ, or none has the paper's loss.
    """
    runs: dict[str, Run] = {}
    for folder in folders:
        run = Run.reopen_finished(folder)
        loss = run.settings.list_loss
        if loss in runs:
            raise ValueError(f"{folder} has the loss {loss} of {runs[loss].settings.out}; expected one run for each")
        first = next(iter(runs.values()), run).settings
        for field in dataclasses.fields(first):
            ours, others = getattr(run.settings, field.name), getattr(first, field.name)
            if field.name not in _FREE and ours != others:
                name = field.name.replace("_", "-")
                raise ValueError(f"{folder} has --{name} {ours}; expected {others}, as {first.out}")
        check_count(2, **{f"--seeds of {folder}": run.settings.seeds})
        runs[loss] = run
    if BASE[0] not in runs or BASE[1] not in runs[BASE[0]].settings.method_names:
        raise ValueError(f"no run has --list-loss {BASE[0]} with the method {BASE[1]}; expected one to compare with")
    return runs


def compare(args: ListLosses) -> dict[str, Any]:
    """Compares all pairs on validation, and those found there on test.

    Returns:
        ``{"dataset", "backbone", "protocol", "metric", "seeds", "budget", "false_discovery", "base", "pairs",
        "contrasts"}``; a pair has "loss", "method", "mean", "sd" over seeds, "difference", "interval", "p" and "q" of
        the validation sessions, and a contrast "difference", "interval", "p" and "holm" of the test sessions.

    Raises:
        ValueError: as in :func:`opened_runs`, or an option is out of range.
    """
    runs = opened_runs(args.runs)
    ranks: dict[tuple[str, str], np.ndarray] = {}
    session_id = None
    for loss, run in runs.items():
        print_line(f"loss {loss}: {run.settings.out}")
        names = [name for name in run.settings.method_names if name in METHODS and reads_list_loss(name)]
        of_methods, session_id = validation_ranks(run, names)
        ranks |= {(loss, method): of_seeds for method, of_seeds in of_methods.items()}
    spreads = {
        pair: spread(of_seeds, ranks[BASE], session_id=session_id, metric=args.metric)
        for pair, of_seeds in ranks.items()
        if pair != BASE
    }
    corrected = stats.false_discovery_control([found.p_value() for found in spreads.values()])
    pairs = [_named(BASE) | over_seeds(ranks[BASE], args.metric)]
    for (pair, found), q in zip(spreads.items(), corrected, strict=True):
        pairs.append(_named(pair) | over_seeds(ranks[pair], args.metric) | _as_record(found) | {"q": float(q)})
    promising = [pair for pair in pairs[1:] if pair["q"] <= args.false_discovery and pair["difference"] > 0]
    promising = sorted(promising, key=lambda pair: -pair["difference"])[: args.contrasts]
    settings = runs[BASE[0]].settings
    about: dict[str, Any] = {
        "dataset": runs[BASE[0]].dataset.name,
        "backbone": settings.backbone,
        "protocol": settings.protocol.name,
        "metric": args.metric,
        "seeds": settings.seeds,
        "budget": settings.resolved_budget,
        "false_discovery": args.false_discovery,
        "base": {"loss": BASE[0], "method": BASE[1]},
    }
    return about | finite_or_none({"pairs": pairs, "contrasts": _contrasts(runs, promising, args.metric)})


def _contrasts(runs: Mapping[str, Run], pairs: Sequence[Mapping[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Compares the pairs chosen on validation with the base on the test sessions."""
    if not pairs:
        return []
    tested = {loss: stored_test_ranks(runs[loss]) for loss in {BASE[0], *(pair["loss"] for pair in pairs)}}
    base, session_id = tested[BASE[0]][0][BASE[1]], tested[BASE[0]][1]
    records = []
    for pair in pairs:
        found = spread(tested[pair["loss"]][0][pair["method"]], base, session_id=session_id, metric=metric)
        records.append({"loss": pair["loss"], "method": pair["method"]} | _as_record(found))
    corrected = significance.holm([record["p"] for record in records])
    return [record | {"holm": float(p)} for record, p in zip(records, corrected, strict=True)]


def _named(pair: tuple[str, str]) -> dict[str, Any]:
    return {"loss": pair[0], "method": pair[1]}


def _as_record(found: Spread) -> dict[str, Any]:
    return {"difference": found.difference, "interval": found.interval, "p": found.p_value()}


def main() -> None:
    """Entry point."""
    with cli_errors():
        args = parse(ListLosses, "list_losses", __doc__)
        args.check()
        result = compare(args)
        print_lines(list_loss_rows.tables(result))
        if args.json is not None:
            write_json(args.json, result)
            print_line(str(args.json))


if __name__ == "__main__":
    main()
