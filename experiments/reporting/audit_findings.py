"""Findings of an audit in words: what a property's value means, and whether it needs attention."""

import dataclasses
import math
from typing import Any

from alkd_jax.data.times import format_time


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


def findings(result: dict[str, Any]) -> dict[str, list[Finding]]:
    """Returns the findings by topic."""
    return {
        "Size": _size(result),
        "Order within sessions": _order(result),
        "Duplicates": _duplicates(result["duplicates"]),
        "Between the splits": _across_splits(result),
        "Drift": _drift(result),
        "Does the order matter": _sequentiality(result),
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
    order, ties, counts = result["order"], result["ties"], result["counts"]
    num_pairs = counts["interactions"] - counts["sessions"]

    def rising(name: str, share: float | None, num: int) -> Finding:
        if share is None:
            return Finding(name, "none", "")
        # A share of few pairs differs from a half by chance: by three standard errors at most, of independent pairs.
        biased = abs(share - 0.5) > max(0.05, 3 * math.sqrt(0.25 / num))
        explanation = (
            "the order follows the item id, so a model can predict items from ids alone"
            if biased
            else f"about as often as falling, of {num:,}"
        )
        return Finding(name, _share(share), explanation, "warning" if biased else "ok")

    lines = [
        rising("consecutive items with rising item id", order["pairs_rising"], num_pairs),
        rising("last input and target with rising item id", order["pairs_to_target_rising"], counts["sessions"]),
        Finding("sessions rising throughout", _share(order["sessions_all_rising"]), "sorted by id"),
    ]
    if ties is None:
        return [*lines, Finding("equal times", "unknown", "these data have no times")]
    tied, num_tied = ties["pairs_tied"], round(ties["pairs_tied"] * num_pairs)
    explanation = "their order is not that of time; see --ties" if tied > 0.01 else "negligible"
    if ties["times_are_days"]:
        explanation += "; all times are midnight, so that only the day is known"
    return [
        *lines,
        Finding("consecutive items with equal times", _share(tied), explanation, "warning" if tied > 0.01 else "ok"),
        rising("consecutive items with equal times and rising item id", ties["tied_pairs_rising"], num_tied),
        rising(
            "consecutive items with different times and rising item id",
            ties["untied_pairs_rising"],
            num_pairs - num_tied,
        ),
        Finding("first time", format_time(ties["first_time"]), ""),
        Finding("last time", format_time(ties["last_time"]), ""),
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


def _drift(result: dict[str, Any]) -> list[Finding]:
    lines = (
        [Finding("training later than test", "warning", result["leak_warning"], "warning")]
        if result.get("leak_warning")
        else []
    )
    parts = result.get("drift", {})
    train = parts.get("train")
    for name, part in parts.items():
        if part is None:
            continue
        if part["first_time"] is not None:
            span = f"{format_time(part['first_time'])} to {format_time(part['last_time'])}"
            lines.append(Finding(f"{name}: times", span, "of all events" if name == "train" else "of the targets"))
        if name == "train":
            explanation = "the most popular tenth of the items in training"
        else:
            explanation = f"in training {_share(train['on_head'])}" if train else ""
        lines.append(Finding(f"{name}: events on the head", _share(part["on_head"]), explanation))
        if "unseen" in part:
            divergence, chance = part["js_divergence"], part["js_divergence_at_random"]
            lines += [
                Finding(
                    f"{name}: targets never in train",
                    _share(part["unseen"]),
                    "of all targets",
                    "warning" if part["unseen"] > 0.05 else "info",
                ),
                Finding(
                    f"{name}: Jensen–Shannon divergence of popularity from train",
                    f"{divergence:.3f}",
                    "" if chance is None else f"{chance:.3f} if events were exchanged at random; 0 equal, 1 disjoint",
                    "warning" if chance is not None and divergence > 1.5 * chance + 0.01 else "ok",
                ),
            ]
    return lines


def _sequentiality(result: dict[str, Any]) -> list[Finding]:
    lines = []
    for name, rules in result.get("rules", {}).items():
        ratio = rules["ratio"]
        value = "none" if ratio is None else f"{rules['ordered']:,} → {rules['shuffled']:,.0f} ({ratio:.2f})"
        explanation = "shuffled sessions have as many: the order does not matter" if ratio and ratio > 0.8 else ""
        severity = "warning" if explanation else "info"
        lines.append(Finding(f"frequent rules of {name[0]} items, in order → shuffled", value, explanation, severity))
    for name, order in (result.get("shuffled_histories") or {}).items():
        change = order["change"]["ndcg@10"]
        lines.append(
            Finding(
                f"{name}: ndcg@10, history in order → shuffled",
                f"{order['ordered']['ndcg@10']:.4f} → {order['shuffled']['ndcg@10']:.4f}"
                + ("" if change is None else f" ({change:+.0%})"),
                f"recall@10 {order['ordered']['recall@10']:.4f} → {order['shuffled']['recall@10']:.4f}; lists overlap "
                f"by {order['overlap@10']:.2f} (Jaccard)",
            )
        )
    return lines
