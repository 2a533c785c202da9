"""What every method is called, what it learns from, and how each backbone is trained."""

from collections.abc import Mapping

SELECTIONS = ("Random", "ALKDRec", "RAD-BC", "Easiest", "Hardest")
"""Ways to choose the sessions an LLM is asked about; the student is then distilled from its lists."""

BASELINES = ("DE", "FTD", "HTD", "unKD", "DSL", "DLLM2Rec", "RD")
"""Distillation from the conventional teacher (DSL: none, DLLM2Rec: lists of the randomly chosen sessions)."""

CONTROLS: Mapping[str, str] = {
    "Longer training": "the student goes on with its own labels",
    "True labels": "the next items of ALKDRec's sessions instead of lists",
    "Teacher lists": "the conventional teacher's top 25 for ALKDRec's sessions",
    "Shuffled lists": "ALKDRec's lists, handed to each other's sessions",
    "Popularity lists": "the same popular items for each of ALKDRec's sessions",
    "Co-occurrence lists": "items that go along with the session's, counted in other sessions, for ALKDRec's sessions",
}
"""What the paper does not compare with: the same distillation, with something else in the lists' place."""

TUNED = "Tuned ALKDRec"
"""ALKDRec with the same search for its options as the baselines have; ALKDRec itself keeps the paper's."""

DISTILLED = (*SELECTIONS, "TR", *CONTROLS, *BASELINES, TUNED)
"""Everything that makes a student; "TR" learns the conventional teacher's top 50 of all sessions."""

SETS: Mapping[str, tuple[str, ...]] = {
    "short": ("Random", "ALKDRec"),
    "table1": (*BASELINES, "ALKDRec", TUNED),
    "table2": ("TR", *SELECTIONS),
    "controls": ("ALKDRec", *CONTROLS),
    "all": DISTILLED,
}
"""Names for several methods at once."""

DISTILLATION_RATE: Mapping[str, float] = {"fpmc": 1e-3, "stamp": 1e-3, "attmix": 1e-4}
"""Learning rate of distillation, by backbone, as released."""


def parse_methods(text: str) -> tuple[str, ...]:
    """Reads names of methods or of sets of them, with commas between, each method once, in the order of `DISTILLED`.

    Raises:
        ValueError: a name is unknown.
    """
    asked: set[str] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in SETS and name not in DISTILLED:
            raise ValueError(f"--methods names {name!r}; expected {', '.join(SETS)} or any of {', '.join(DISTILLED)}")
        asked |= set(SETS.get(name, (name,)))
    if not asked:
        raise ValueError(f"--methods is {text!r}; expected at least one name")
    return tuple(method for method in DISTILLED if method in asked)


def trained_methods(asked: tuple[str, ...]) -> dict[str, str]:
    """Method → where its parameters lie in the run's folder."""
    return {"Student": "student", "Teacher": "teacher"} | {method: f"distilled/{method}" for method in asked}


def role_of(method: str) -> str:
    """Whose width a method's model has: "student", or "teacher" for DSL, which thins out a wide one."""
    return "teacher" if method in ("Teacher", "DSL") else "student"


def chosen_by(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The selections whose sessions an LLM has to rank for these methods; ALKDRec's where they need none."""
    needed = set(asked) & set(SELECTIONS)
    if "DLLM2Rec" in asked:
        needed.add("Random")
    if not needed or set(asked) & ({*CONTROLS, TUNED} - {"Longer training"}):
        needed.add("ALKDRec")
    return tuple(selection for selection in SELECTIONS if selection in needed)
