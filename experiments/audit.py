"""One page about a data set that a reviewer would want: ties, order, duplicates, leaks, unseen targets, titles.

    python -m experiments.audit --data prepared:DIR --out runs/audit-ml
    python -m experiments.audit --data released:PATH:Games --out runs/audit-games

Writes `audit.json` and `audit.html`, and prints what asks for a look.
"""

import dataclasses
import os
import pathlib
from typing import Any

import jinja2
import markupsafe
import numpy as np
import tyro
from matplotlib.figure import Figure

import alkd_jax as alkd
from alkd_jax.data.audit import audit
from alkd_jax.data.sessions import pack
from alkd_jax.io import write_json

from .pipeline.sources import parse_source
from .reporting.console import cli_errors, console
from .reporting.report import svg

_WHOLE = 1000


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the page.

    Attributes:
        name: what was counted.
        value: how many, or what share.
        reading: what it means.
        verdict: "look", "fine" or "told".
    """

    name: str
    value: str
    reading: str
    verdict: str = "told"


def run(data: str, out: pathlib.Path) -> dict[str, Any]:
    """Audits a data set and writes its page.

    Returns:
        What `audit.json` holds.
    """
    source = parse_source(data)
    if source.kind == "prepared":
        held = alkd.data.read_prepared(source.path)
        dataset = held.dataset()
        found = audit(held.sequences, held.sizes, held.titles, held.item_ids, time=held.time, user=held.user)
    else:
        dataset = source.load() if source.kind == "synthetic" else _whole(source.path, source.name)
        splits = (dataset.train, dataset.validation, dataset.test)
        rows = [row for split in splits for row in _rows(split)]
        found = audit(pack(rows), [len(split) for split in splits], dataset.titles, dataset.item_ids)
    topics = findings(found)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "audit.json", found)
    _write_page(out / "audit.html", dataset, found, topics)
    for heading, lines in topics.items():
        for line in lines:
            if line.verdict == "look":
                told = f"{heading}: {line.name}: {line.value}. {line.reading}"
                console.print(told, style="yellow", highlight=False, markup=False)
    console.print(f"{out}/audit.html, {out}/audit.json", highlight=False, markup=False)
    return found


def _whole(path: str, name: str) -> alkd.Dataset:
    """The released data with no session cut."""
    return alkd.data.load_released(path, name, max_length=_WHOLE)


def _rows(sessions: alkd.Sessions) -> list[list[int]]:
    inputs = np.split(sessions.items[sessions.mask], np.cumsum(sessions.mask.sum(axis=1))[:-1])
    return [[*row.tolist(), int(target)] for row, target in zip(inputs, sessions.target, strict=True)]


def findings(found: dict[str, Any]) -> dict[str, list[Finding]]:
    """What the counts mean, topic by topic."""
    return {
        "Size": _size(found),
        "Order within sessions": _order(found),
        "Duplicates": _duplicates(found["duplicates"]),
        "Between the splits": _between(found),
        "Titles": _titles(found["titles"]),
    }


def _size(found: dict[str, Any]) -> list[Finding]:
    told = [Finding(name, f"{count:,}", "") for name, count in found["counts"].items() if count is not None]
    popularity = found["popularity"]
    return [
        *told,
        Finding("sessions longer than a window of 10", _share(found["longer_than_window"]), "older items are cut"),
        Finding("items that occur once", f"{popularity['items_once']:,}", "no model can learn both sides of these"),
        Finding(
            "items that never occur", f"{popularity['items_never']:,}", "in the catalogue, and ranked, all the same"
        ),
        Finding("interactions with the top percent", _share(popularity["share_of_top_percent"]), "of the items"),
        Finding("Gini index of popularity", f"{popularity['gini']:.3f}", "0 all items alike, 1 one item only"),
    ]


def _order(found: dict[str, Any]) -> list[Finding]:
    order, ties = found["order"], found["ties"]

    def rising(name: str, share: float | None) -> Finding:
        if share is None:
            return Finding(name, "none", "")
        far = abs(share - 0.5) > 0.05
        reading = "order follows the item id, so a model can win by counting" if far else "as often as it falls"
        return Finding(name, _share(share), reading, "look" if far else "fine")

    lines = [
        rising("neighbours with rising item id", order["pairs_rising"]),
        rising("last input and target with rising item id", order["pairs_to_target_rising"]),
        Finding("sessions rising throughout", _share(order["sessions_all_rising"]), "sorted by id from end to end"),
    ]
    if ties is None:
        return [*lines, Finding("equal times", "not known", "these data carry no times")]
    tied = ties["pairs_tied"]
    how = "their order is not time; see --ties" if tied > 0.01 else "hardly any"
    if ties["times_are_days"]:
        how += "; all times are midnights, so only the day is known"
    return [
        *lines,
        Finding("neighbours with equal times", _share(tied), how, "look" if tied > 0.01 else "fine"),
        rising("… of these with rising item id", ties["tied_pairs_rising"]),
        rising("neighbours with different times and rising item id", ties["untied_pairs_rising"]),
        Finding("from", _date(ties["first_time"]), ""),
        Finding("to", _date(ties["last_time"]), ""),
    ]


def _duplicates(duplicates: dict[str, int]) -> list[Finding]:
    readings = {
        "sessions_identical_to_an_earlier": "counted once too often",
        "repeats_within_sessions": "an item twice in one session",
        "sessions_with_target_in_input": "models that exclude what was seen cannot find these targets",
        "validation_sessions_also_in_train": "known answers",
        "test_sessions_also_in_train": "known answers",
    }
    return [
        Finding(name.replace("_", " "), f"{count:,}", readings[name] if count else "", "look" if count else "fine")
        for name, count in duplicates.items()
    ]


def _between(found: dict[str, Any]) -> list[Finding]:
    overlap, lines = found["overlap"], []
    near, far = overlap["neighbours_sharing_an_item"], overlap["random_sessions_sharing_an_item"]
    shuffled = abs(near - far) <= 0.2 * max(far, 1e-9)
    lines.append(
        Finding(
            "neighbouring sessions that share an item",
            f"{_share(near)}, random pairs {_share(far)}",
            "rows are in no order" if shuffled else "rows are in an order (by user, say), and blocks of them differ",
            "fine" if shuffled else "told",
        )
    )
    if "users_in_train_and_test" in overlap:
        shared = overlap["test_sessions_of_users_in_train"]
        reading = "the model met these people" if shared else "test users are new"
        lines += [
            Finding("users in train and test", f"{overlap['users_in_train_and_test']:,}", ""),
            Finding("test sessions of users in train", _share(shared), reading),
        ]
    late = overlap.get("train_sessions_ending_after_the_first_test_session")
    if late is not None:
        reading = (
            "training has seen what comes after the test began" if late else "training ends before the test begins"
        )
        name = "train sessions ending after the first test session starts"
        lines.append(Finding(name, _share(late), reading, "look" if late else "fine"))
    for name, count in found["unseen_targets"].items():
        value = f"{count['sessions']:,} of {count['of']:,} ({_share(count['sessions'] / max(count['of'], 1))})"
        reading = "no model of ids can rank these but by chance"
        verdict = "look" if count["sessions"] > 0.05 * count["of"] else "told"
        lines.append(Finding(f"{name} targets never in train", value, reading, verdict))
    return lines


def _titles(titles: dict[str, Any]) -> list[Finding]:
    bad = {"empty", "with HTML entities", "with HTML tags", "with a line end or a tab", "a stand-in such as nan"}
    lines = [
        Finding(name, f"{fault['items']:,}", " · ".join(fault["such_as"]), _verdict(name in bad, fault["items"]))
        for name, fault in titles["faults"].items()
    ]
    return [*lines, Finding("longest", f"{titles['longest']} letters", f"median {titles['median_length']:.0f}")]


def _verdict(bad: bool, count: int) -> str:
    return "fine" if not count else "look" if bad else "told"


def _share(share: float) -> str:
    return f"{share:.1%}"


def _date(milliseconds: int) -> str:
    return str(np.datetime64(milliseconds, "ms").astype("datetime64[m]")).replace("T", " ") + " UTC"


def _figure(found: dict[str, Any]) -> str:
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    lengths, curve = figure.subplots(1, 2)
    count, popularity = found["lengths"], found["popularity"]
    lengths.bar(range(len(count)), count, color="#3b6fb6", width=0.85)
    lengths.set(xlabel="interactions of a session, target included", ylabel="sessions")
    curve.loglog(popularity["rank"], np.maximum(popularity["count"], 0.5), color="#b1323f", lw=1.5)
    curve.set(xlabel="rank of the item", ylabel="interactions")
    for axes in (lengths, curve):
        axes.spines[["top", "right"]].set_visible(False)
    return svg(figure)


def _flat(name: str, value: object) -> list[tuple[str, str]]:
    """Nested values as lines of a dotted name and a value."""
    if isinstance(value, dict):
        return [line for key, inner in value.items() for line in _flat(f"{name}.{key}", inner)]
    return [(name, str(value))]


def _write_page(path: pathlib.Path, dataset: alkd.Dataset, found: dict[str, Any], topics: dict[str, Any]) -> None:
    environment = jinja2.Environment(loader=jinja2.PackageLoader(f"{__package__}.reporting"), autoescape=True)
    report = dict(dataset.report)
    about = "{sessions:,} sessions of {interactions:,} interactions over {items:,} items.".format(**found["counts"])
    hidden = ("bad_rows", "lengths")
    made = [line for key, value in report.items() if key not in hidden for line in _flat(key, value)]
    page = environment.get_template("audit.html.jinja").render(
        title=f"Audit of {dataset.name}",
        about=about,
        topics=topics.items(),
        figure=markupsafe.Markup(_figure(found)),
        caption="Left: lengths of sessions. Right: how often items occur, most popular first, both axes logarithmic.",
        made=made,
        samples=report.get("bad_rows", {}).get("samples", []),
        fingerprint=dataset.fingerprint,
    )
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, path)


def main() -> None:
    """Entry point."""

    def ask(data: str, out: pathlib.Path) -> None:
        """Audits one data set.

        Args:
            data: prepared:PATH, released:PATH:NAME or synthetic.
            out: folder for the page.
        """
        run(data, out)

    with cli_errors():
        tyro.cli(ask, description=__doc__)


if __name__ == "__main__":
    main()
