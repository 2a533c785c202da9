"""Audits a dataset: ties, order, duplicates, overlap and drift between splits, titles, on one page.

    python -m experiments.audit --data prepared:DIR --out runs/audit-ml
    python -m experiments.audit --data released:PATH:Games --out runs/audit-games --backbone fpmc

It also shows whether the order of items matters: how many frequent rules are left in shuffled sessions, and what
recommenders lose where the histories of test sessions are shuffled.

Writes `audit.json` and `audit.html`, and prints the findings that need attention.
"""

import dataclasses
import pathlib
from typing import Annotated, Any

import markupsafe
import numpy as np
from matplotlib.figure import Figure

import alkd_jax as alkd
from alkd_jax import models
from alkd_jax.data.audit import audit
from alkd_jax.data.drift import drift
from alkd_jax.data.readers import registry
from alkd_jax.data.sequentiality import compare_rules
from alkd_jax.data.sessions import take_sequences
from alkd_jax.io import to_json, write_texts

from .pipeline import light_options, options, shuffled_histories
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line
from .reporting.audit_findings import findings
from .reporting.pages import render_page
from .reporting.report_figures import figure_to_svg


@dataclasses.dataclass(frozen=True)
class Audit:
    """Options of the audit of one dataset.

    Attributes:
        out: folder for the page.
        shuffles: number of times the histories of test sessions are shuffled, to show what recommenders lose by it; 0
            to leave this out.
        backbone: a backbone that is trained and then ranks by shuffled histories, beside the counting recommenders.
        max_steps: the largest number of its training steps.
        max_sessions: number of test sessions, at random, that are ranked by shuffled histories.
    """

    data: options.Data
    out: pathlib.Path
    shuffles: int = 3
    backbone: Annotated[str | None, light_options.choices(models.BACKBONES, own=True)] = None
    max_steps: int = 2000
    max_sessions: int = 2000


def run(args: Audit) -> dict[str, Any]:
    """Audits a dataset and writes its page.

    Returns:
        The content of `audit.json`.
    """
    source = registry.parse_source(args.data)
    prepared = alkd.data.read_prepared(source.path) if source.kind == "prepared" else None
    dataset = prepared.dataset() if prepared is not None else registry.read(args.data)
    sequences, first_target = _all_sequences(dataset)
    sizes = (len(dataset.train), len(dataset.validation), len(dataset.test))
    # A prepared source without times has row numbers in their place.
    is_timed = prepared is not None and prepared.has_times
    time = prepared.time if prepared is not None and is_timed else None
    result = audit(
        sequences,
        sizes,
        dataset.titles,
        dataset.item_ids,
        time=time,
        user=None if prepared is None else prepared.user,
        cuts=None if prepared is None or prepared.has_whole_sessions else (first_target, prepared.distinct_rows),
    )
    result["leak_warning"] = dataset.report.get("leak_warning", "")
    result["drift"] = drift(sequences, sizes, dataset.num_items, first_target=first_target, time=time)
    whole = sequences if prepared is None else take_sequences(sequences, prepared.distinct_rows)
    result["rules"] = compare_rules(whole)
    if args.shuffles:
        recommenders = shuffled_histories.counting_recommenders(dataset)
        if args.backbone is not None:
            recommenders.append(
                shuffled_histories.trained_recommender(dataset, args.backbone, max_steps=args.max_steps)
            )
        result["shuffled_histories"] = shuffled_histories.measure_order(
            dataset, recommenders, repeats=args.shuffles, max_sessions=args.max_sessions
        )
    topics = findings(result)
    args.out.mkdir(parents=True, exist_ok=True)
    page = _make_page(dataset, result, topics)
    write_texts({args.out / "audit.json": to_json(result), args.out / "audit.html": page})
    for heading, lines in topics.items():
        for line in lines:
            if line.severity == "warning":
                message = f"{heading}: {line.name}: {line.value}; {line.explanation}"
                print_line(message, style="yellow")
    print_line(f"{args.out}/audit.html, {args.out}/audit.json")
    return result


def _all_sequences(dataset: alkd.Dataset) -> tuple[alkd.Sequences, np.ndarray]:
    """Returns the complete sessions of all parts, and the first target of each."""
    held_out = (dataset.validation_sequences, dataset.test_sequences)
    parts = (dataset.train_sequences, *(part.sequences for part in held_out))
    length = np.concatenate([np.diff(np.asarray(part.offsets)) for part in parts])
    sequences = alkd.Sequences(
        items=np.concatenate([np.asarray(part.items) for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(length, dtype=np.int64)]),
    )
    first = [np.ones(len(dataset.train_sequences), np.int32), *(np.asarray(part.first_target) for part in held_out)]
    return sequences, np.concatenate(first)


def _figure(result: dict[str, Any]) -> str:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    length_axes, popularity_axes = figure.subplots(1, 2)
    count, popularity = result["lengths"], result["popularity"]
    length_axes.bar(range(len(count)), count, color="#3b6fb6", width=0.85)
    length_axes.set(xlabel="interactions of a session, target included", ylabel="sessions")
    popularity_axes.loglog(popularity["rank"], np.maximum(popularity["count"], 0.5), color="#b1323f", lw=1.5)
    popularity_axes.set(xlabel="rank of the item", ylabel="interactions")
    for axes in (length_axes, popularity_axes):
        axes.spines[["top", "right"]].set_visible(False)
    return figure_to_svg(figure)


def _flatten(name: str, value: object) -> list[tuple[str, str]]:
    """Returns nested values as pairs of a dotted name and a value."""
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in _flatten(f"{name}.{key}", inner)]
    return [(name, str(value))]


def _make_page(dataset: alkd.Dataset, result: dict[str, Any], topics: dict[str, Any]) -> str:
    report = dict(dataset.report)
    about = "{sessions:,} sessions of {interactions:,} interactions over {items:,} items.".format(**result["counts"])
    hidden = ("bad_rows", "lengths")
    provenance = [line for key, value in report.items() if key not in hidden for line in _flatten(key, value)]
    return render_page(
        "audit.html.jinja",
        title=f"Audit of {dataset.name}",
        about=about,
        topics=topics.items(),
        figure=markupsafe.Markup(_figure(result)),
        caption="Left: lengths of sessions. Right: how often items occur, most popular first, both axes logarithmic.",
        provenance=provenance,
        samples=report.get("bad_rows", {}).get("samples", []),
        fingerprint=dataset.fingerprint,
    )


def main() -> None:
    """Entry point."""
    with cli_errors():
        run(parse(Audit, "audit", __doc__))


if __name__ == "__main__":
    main()
