"""Audits a dataset: ties, order, duplicates, overlap between splits, unseen targets and titles, on one page.

    python -m experiments.audit --data prepared:DIR --out runs/audit-ml
    python -m experiments.audit --data released:PATH:Games --out runs/audit-games

Writes `audit.json` and `audit.html`, and prints the findings that need attention.
"""

import dataclasses
import pathlib
from typing import Any

import markupsafe
import numpy as np
from matplotlib.figure import Figure

import alkd_jax as alkd
from alkd_jax.data.audit import audit
from alkd_jax.data.readers import registry
from alkd_jax.data.sessions import pack
from alkd_jax.io import to_json, write_texts

from .pipeline import options
from .pipeline.command_line import parse
from .pipeline.console import cli_errors, print_line
from .reporting.pages import render_page
from .reporting.report import figure_to_svg

_MAX_SESSION_LENGTH = 1000


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        name: the property.
        value: its count or share.
        explanation: what the value means.
        severity: "warning", "ok" or "info".
    """

    name: str
    value: str
    explanation: str
    severity: str = "info"


def run(data: str, out: pathlib.Path) -> dict[str, Any]:
    """Audits a dataset and writes its page.

    Returns:
        The content of `audit.json`.
    """
    source = registry.parse_source(data)
    if source.kind == "prepared":
        prepared = alkd.data.read_prepared(source.path)
        dataset = prepared.dataset()
        result = audit(
            prepared.sequences,
            prepared.sizes,
            prepared.titles,
            prepared.item_ids,
            time=prepared.time,
            user=prepared.user,
        )
    else:
        untruncated = source.kind == "released"
        dataset = _load_untruncated(source.path, source.name) if untruncated else registry.read(data)
        splits = (dataset.train, dataset.validation, dataset.test)
        rows = [row for split in splits for row in _rows(split)]
        result = audit(pack(rows), [len(split) for split in splits], dataset.titles, dataset.item_ids)
    topics = findings(result)
    out.mkdir(parents=True, exist_ok=True)
    page = _make_page(dataset, result, topics)
    write_texts({out / "audit.json": to_json(result), out / "audit.html": page})
    for heading, lines in topics.items():
        for line in lines:
            if line.severity == "warning":
                message = f"{heading}: {line.name}: {line.value}. {line.explanation}"
                print_line(message, style="yellow")
    print_line(f"{out}/audit.html, {out}/audit.json")
    return result


def _load_untruncated(path: str, name: str) -> alkd.Dataset:
    """Reads the released data without truncating sessions."""
    return alkd.data.load_released(path, name, max_length=_MAX_SESSION_LENGTH)


def _rows(sessions: alkd.Sessions) -> list[list[int]]:
    return [
        [*items[mask].tolist(), int(target)]
        for items, mask, target in zip(sessions.items, sessions.mask, sessions.target, strict=True)
    ]


def findings(result: dict[str, Any]) -> dict[str, list[Finding]]:
    """Returns the findings by topic."""
    return {
        "Size": _size(result),
        "Order within sessions": _order(result),
        "Duplicates": _duplicates(result["duplicates"]),
        "Between the splits": _across_splits(result),
        "Titles": _titles(result["titles"]),
    }


def _size(result: dict[str, Any]) -> list[Finding]:
    counts = [Finding(name, f"{count:,}", "") for name, count in result["counts"].items() if count is not None]
    popularity = result["popularity"]
    return [
        *counts,
        Finding(
            "sessions longer than a window of 10", _share(result["longer_than_window"]), "older items are truncated"
        ),
        Finding(
            "items that occur once", f"{popularity['items_once']:,}", "no model can both learn and predict these items"
        ),
        Finding(
            "items that never occur",
            f"{popularity['items_never']:,}",
            "they are ranked too, because they are in the catalogue",
        ),
        Finding("interactions with the top percent of items", _share(popularity["share_of_top_percent"]), ""),
        Finding(
            "Gini index of popularity",
            f"{popularity['gini']:.3f}",
            "0: all items are equally popular, 1: one item only",
        ),
    ]


def _order(result: dict[str, Any]) -> list[Finding]:
    order, ties = result["order"], result["ties"]

    def rising(name: str, share: float | None) -> Finding:
        if share is None:
            return Finding(name, "none", "")
        biased = abs(share - 0.5) > 0.05
        explanation = (
            "the order follows the item id, so a model can predict items from ids alone"
            if biased
            else "as often as falling"
        )
        return Finding(name, _share(share), explanation, "warning" if biased else "ok")

    lines = [
        rising("consecutive items with rising item id", order["pairs_rising"]),
        rising("last input and target with rising item id", order["pairs_to_target_rising"]),
        Finding("sessions rising throughout", _share(order["sessions_all_rising"]), "sorted by id"),
    ]
    if ties is None:
        return [*lines, Finding("equal times", "unknown", "these data have no times")]
    tied = ties["pairs_tied"]
    explanation = "their order is not that of time; see --ties" if tied > 0.01 else "negligible"
    if ties["times_are_days"]:
        explanation += "; all times are midnight, so that only the day is known"
    return [
        *lines,
        Finding("consecutive items with equal times", _share(tied), explanation, "warning" if tied > 0.01 else "ok"),
        rising("… of these with rising item id", ties["tied_pairs_rising"]),
        rising("consecutive items with different times and rising item id", ties["untied_pairs_rising"]),
        Finding("first time", _date(ties["first_time"]), ""),
        Finding("last time", _date(ties["last_time"]), ""),
    ]


def _duplicates(duplicates: dict[str, int]) -> list[Finding]:
    explanations = {
        "sessions_identical_to_an_earlier": "counted more than once",
        "repeats_within_sessions": "an item occurs twice in one session",
        "sessions_with_target_in_input": "models that exclude seen items cannot recommend these targets",
        "validation_sessions_also_in_train": "their targets are in the training data",
        "test_sessions_also_in_train": "their targets are in the training data",
    }
    return [
        Finding(name.replace("_", " "), f"{count:,}", explanations[name] if count else "", "warning" if count else "ok")
        for name, count in duplicates.items()
    ]


def _across_splits(result: dict[str, Any]) -> list[Finding]:
    overlap, lines = result["overlap"], []
    adjacent, random_pairs = overlap["neighbors_sharing_an_item"], overlap["random_sessions_sharing_an_item"]
    if adjacent is not None and random_pairs is not None:
        shuffled = abs(adjacent - random_pairs) <= 0.2 * max(random_pairs, 1e-9)
        lines.append(
            Finding(
                "adjacent sessions that share an item",
                f"{_share(adjacent)}, random pairs {_share(random_pairs)}",
                "the rows are shuffled"
                if shuffled
                else "the rows are ordered (for example by user), and their blocks differ",
                "ok" if shuffled else "info",
            )
        )
    if "users_in_train_and_test" in overlap:
        shared = overlap["test_sessions_of_users_in_train"]
        explanation = "the model has seen these users" if shared else "test users are new"
        lines += [
            Finding("users in train and test", f"{overlap['users_in_train_and_test']:,}", ""),
            Finding("test sessions of users in train", _share(shared), explanation),
        ]
    num_late = overlap.get("train_sessions_ending_after_the_first_test_session")
    if num_late is not None:
        explanation = (
            "training data include sessions later than the first test session"
            if num_late
            else "training ends before test begins"
        )
        name = "train sessions ending after the first test session starts"
        lines.append(Finding(name, _share(num_late), explanation, "warning" if num_late else "ok"))
    for name, count in result["unseen_targets"].items():
        value = f"{count['sessions']:,} of {count['of']:,} ({_share(count['sessions'] / max(count['of'], 1))})"
        explanation = "a model of item ids can rank these only at random"
        severity = "warning" if count["sessions"] > 0.05 * count["of"] else "info"
        lines.append(Finding(f"{name} targets never in train", value, explanation, severity))
    return lines


def _titles(titles: dict[str, Any]) -> list[Finding]:
    bad = {"empty", "with HTML entities", "with HTML tags", "with a line end or a tab", "a stand-in such as nan"}
    lines = [
        Finding(name, f"{problem['items']:,}", " · ".join(problem["such_as"]), _severity(name in bad, problem["items"]))
        for name, problem in titles["faults"].items()
    ]
    return [*lines, Finding("longest", f"{titles['longest']} characters", f"median {titles['median_length']:.0f}")]


def _severity(bad: bool, count: int) -> str:
    return "ok" if not count else "warning" if bad else "info"


def _share(share: float | None) -> str:
    return "none" if share is None else f"{share:.1%}"


def _date(milliseconds: int) -> str:
    return str(np.datetime64(milliseconds, "ms").astype("datetime64[m]")).replace("T", " ") + " UTC"


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

    def command(data: options.Data, out: pathlib.Path) -> None:
        """Audits one dataset.

        Args:
            out: folder for the page.
        """
        run(data, out)

    with cli_errors():
        parse(command, "audit", __doc__)


if __name__ == "__main__":
    main()
