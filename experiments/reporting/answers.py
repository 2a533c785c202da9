"""What a run says, in a few questions with an answer each: made of its tests, whatever these found."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..pipeline.training_free import TRAINING_FREE
from .comparisons import LEVEL

NO_DIFFERENCE = "No significant difference."
_METRIC = "recall@10"
_CONTROLS = ("Shuffled lists", "Longer training")


@dataclasses.dataclass(frozen=True)
class Answer:
    """A question that a reader has.

    Attributes:
        question: the question.
        verdict: its answer in a few words.
        details: sentences with the numbers.
    """

    question: str
    verdict: str
    details: tuple[str, ...]


def answers(results: Mapping[str, Any], quality: Mapping[str, Any]) -> list[Answer]:
    """Returns the questions that a run can answer.

    Args:
        results: as :func:`experiments.reporting.results.collect_results` returns them.
        quality: as :func:`experiments.reporting.teacher_quality.measure_quality` returns it.
    """
    tests = {(test["method"], test["against"]): test for test in results["tests"] if test["metric"] == _METRIC}
    found = [_of_lists(results, tests), _of_selection(results, quality, tests), _of_counting(results, tests)]
    return [answer for answer in found if answer is not None]


def _of_lists(results: Mapping[str, Any], tests: Mapping[tuple[str, str], Any]) -> Answer | None:
    test = tests.get(("ALKDRec", "Student"))
    if test is None:
        return None
    before, after = (_recall(results, name) for name in ("Student", "ALKDRec"))
    details = [f"{_METRIC} of the student is {before:.4f} before and {after:.4f} after the lists: {_difference(test)}."]
    for control in _CONTROLS:
        against = tests.get((control, "Student"))
        if against is not None:
            details.append(
                f"{control}, a control without the lists' content, reaches {_recall(results, control):.4f}: "
                f"{_difference(against)}."
            )
    return Answer("Do the lists help the student?", verdict(test, "Yes.", "No: they harm."), tuple(details))


def _of_selection(
    results: Mapping[str, Any], quality: Mapping[str, Any], tests: Mapping[tuple[str, str], Any]
) -> Answer | None:
    test = tests.get(("ALKDRec", "Random"))
    if test is None:
        return None
    details = [
        f"{_METRIC} is {_recall(results, 'ALKDRec'):.4f} with ALKDRec's sessions and {_recall(results, 'Random'):.4f} "
        f"with as many at random: {_difference(test)}."
    ]
    own, random = (quality["selections"].get(name) for name in ("ALKDRec", "Random"))
    if own and random:
        details.append(
            "Effective lists teach the student what it does not rank yet: they are "
            f"{own['effective']:.1%} of those for ALKDRec's sessions and {random['effective']:.1%} of the random ones."
        )
    found = verdict(test, "Yes: ALKDRec's choice is better than a random one.", "Yes: a random choice is better.")
    if quality["teacher"] == "simulated" and found == NO_DIFFERENCE:
        details.append(
            "The simulated LLM ranks by titles in the same share of easy and of difficult sessions, which leaves a "
            "selection little to find; a real LLM may differ."
        )
    return Answer("Does it matter which sessions the LLM is asked about?", found, tuple(details))


def _of_counting(results: Mapping[str, Any], tests: Mapping[tuple[str, str], Any]) -> Answer | None:
    recalls = {name: _recall(results, name) for name in TRAINING_FREE if name in results["methods"]}
    best = max(recalls, key=recalls.__getitem__, default="")
    test = tests.get(("ALKDRec", best))
    if test is None:
        return None
    detail = (
        f"The best of {len(recalls)} training-free methods on these test sessions, {best}, has {_METRIC} "
        f"{recalls[best]:.4f}; ALKDRec's student has {_recall(results, 'ALKDRec'):.4f}: {_difference(test)}."
    )
    return Answer("Is the student better than counting?", verdict(test, "Yes.", "No: it is worse."), (detail,))


def verdict(test: Mapping[str, Any], better: str, worse: str) -> str:
    """Returns a test's answer, in words for a method that is better and for one that is worse."""
    p_value = test["p_randomization_holm"]
    if p_value is None:
        return "Not tested."
    if p_value >= LEVEL:
        return NO_DIFFERENCE
    return better if test["difference"] > 0 else worse


def _recall(results: Mapping[str, Any], method: str) -> float:
    return float(results["methods"][method][_METRIC]["mean"])


def _difference(test: Mapping[str, Any]) -> str:
    low, high = test["interval"]
    if (low, high) == (0, 0) and test["against"] == "Student":
        return (
            "the same hits in every session, since training keeps the plain student where no step improves validation"
        )
    interval = (
        "" if low is None or high is None else f", 95 % interval over sessions {low:+.4f} to {high:+.4f}, uncorrected"
    )
    p_value = test["p_randomization_holm"]
    chance = "" if p_value is None else f", p {'< 0.001' if p_value < 0.001 else f'= {p_value:.3f}'} after Holm"
    return f"difference {test['difference']:+.4f}{interval}{chance}"
