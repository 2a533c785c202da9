"""The methods by name: what each of them learns from, and which names stand for several methods."""

from collections.abc import Mapping

SELECTIONS = ("Random", "ALKDRec", "RAD-BC", "Easiest", "Hardest")
"""Ways to select the sessions that the LLM ranks; the student is distilled from the lists of these sessions."""

BASELINES = ("DE", "FTD", "HTD", "unKD", "DSL", "DLLM2Rec", "RD")
"""The baselines of Table 1, and RD: they distill the conventional teacher, but DLLM2Rec distills the lists of the
selection Random, and DSL has no teacher."""

CONTROLS: Mapping[str, str] = {
    "Longer training": "the student is trained further on its own labels",
    "True labels": "ALKDRec's sessions with their true next item in place of a list",
    "Teacher lists": "ALKDRec's sessions with the conventional teacher's top 25",
    "Shuffled lists": "ALKDRec's sessions with the lists permuted among them",
    "Popularity lists": "ALKDRec's sessions, each with the list of the most popular items",
    "Co-occurrence lists": "ALKDRec's sessions with the items that co-occur with theirs in other sessions",
}
"""Controls that the paper does not have → what replaces ALKDRec's lists in the same distillation."""

TUNED = "Tuned ALKDRec"
"""ALKDRec with options tuned as the baselines' are; ALKDRec itself has the paper's options."""

DISTILLED = (*SELECTIONS, "TR", *CONTROLS, *BASELINES, TUNED)
"""All methods that train a student; "TR" learns from the conventional teacher's top 50 for all sessions."""

SETS: Mapping[str, tuple[str, ...]] = {
    "short": ("Random", "ALKDRec"),
    "table1": (*BASELINES, "ALKDRec", TUNED),
    "table2": ("TR", *SELECTIONS),
    "controls": ("ALKDRec", *CONTROLS),
    "all": DISTILLED,
}
"""Name of a set of methods → its methods."""


def parse_methods(text: str) -> tuple[str, ...]:
    """Parses names of methods and of sets of methods, separated by commas.

    Args:
        text: the names.

    Returns:
        The methods, each once, in the order of `DISTILLED`.

    Raises:
        ValueError: a name is unknown, or there is none.
    """
    methods: set[str] = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in SETS and name not in DISTILLED:
            raise ValueError(f"--methods has {name!r}; expected {', '.join(SETS)} or any of {', '.join(DISTILLED)}")
        methods |= set(SETS.get(name, (name,)))
    if not methods:
        raise ValueError(f"--methods is {text!r}; expected at least one name")
    return tuple(method for method in DISTILLED if method in methods)


def trained_methods(methods: tuple[str, ...]) -> dict[str, str]:
    """Returns method → path of its parameters in the run's folder, for these methods, student and teacher."""
    return {"Student": "student", "Teacher": "teacher"} | {method: f"distilled/{method}" for method in methods}


def role_of(method: str) -> str:
    """Returns whose width the model of a method has: "student", or "teacher" for DSL, which sparsifies a wide model."""
    return "teacher" if method in ("Teacher", "DSL") else "student"


def needed_selections(methods: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the selections whose sessions the LLM ranks for these methods; ALKDRec's if they need none."""
    needed = set(methods) & set(SELECTIONS)
    if "DLLM2Rec" in methods:
        needed.add("Random")
    if not needed or set(methods) & ({*CONTROLS, TUNED} - {"Longer training"}):
        needed.add("ALKDRec")
    return tuple(selection for selection in SELECTIONS if selection in needed)
