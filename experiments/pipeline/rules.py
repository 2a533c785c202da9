"""The modes of a run: which rules of the authors' code it repeats."""

from collections.abc import Mapping

CLEAN, RELEASED = "clean", "released"

RULES: Mapping[str, str] = {
    "padding": "item 0 of the release is padding too, in the sessions and in the ranking",
    "loss": "in-batch BPR counts the row itself and equal targets as negatives",
    "bands": "the list weights 3, 2 and 1 stand for 6, 10 and 9 positions",
    "lists": "recorded lists keep repeated items and items of their session",
    "difficulty": "difficulty is that of the student",
    "policy": "the game is solved by the paper's closed form, without its k*-th session",
}
"""Rule of the authors' code → what it says. All of them together are the mode "released", none the mode "clean"."""

STOPPING = "stopping"
"""No rule of the authors' code: the test sessions, not those of validation, decide when training stops."""

FORM = f"{CLEAN}, {RELEASED}, or rules of the authors' code separated by commas: {', '.join(RULES)}, {STOPPING}"


def rules_of(mode: str) -> frozenset[str]:
    """Returns the rules that a mode names.

    Args:
        mode: "clean", "released", or names of rules separated by commas, among which "released" stands for all of the
            authors' code.

    Raises:
        ValueError: a name is unknown or occurs twice.
    """
    if mode == CLEAN:
        return frozenset()
    names = mode.split(",")
    found: set[str] = set()
    for name in names:
        named = set(RULES) if name == RELEASED else {name}
        if not named <= {*RULES, STOPPING}:
            raise ValueError(f"--mode is {mode!r}; expected {FORM}")
        if named & found:
            raise ValueError(f"--mode is {mode!r}, which names {min(named & found)} twice; expected each rule once")
        found |= named
    return frozenset(found)


def protocol_rules(rules: frozenset[str]) -> str:
    """Returns the rules of evaluation, as :class:`alkd_jax.evaluation.Protocol` names them: the padding decides."""
    return RELEASED if "padding" in rules else CLEAN


def mode_of(rules: frozenset[str]) -> str:
    """Returns the mode with these rules; the same for all ways to write it."""
    if not rules:
        return CLEAN
    authors = [name for name in RULES if name in rules]
    named = [RELEASED] if len(authors) == len(RULES) else authors
    return ",".join([*named, *([STOPPING] if STOPPING in rules else [])])
