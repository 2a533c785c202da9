"""The words of a report, with their definitions, which a page shows at the word and in a list at its end."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Term:
    """A word of a page.

    Attributes:
        name: as a page writes it.
        definition: one or two sentences.
    """

    name: str
    definition: str


TERMS = {
    "session": Term(
        "session", "The items that one visitor chose, in time order; a model sees them and ranks the next."
    ),
    "student": Term(
        "student",
        "The small model that is to be used: few numbers for each item. Student alone, without a method's name, is the "
        "one before distillation, trained on the sessions only.",
    ),
    "recommender": Term(
        "recommender teacher",
        "A wider model of the same kind as the student, trained on the same sessions. It rates how difficult a session "
        "is and proposes the items that the LLM ranks. It is no LLM.",
    ),
    "llm": Term(
        "LLM",
        "A large language model, which reads the titles of a session and of candidate items, and ranks these. A "
        "simulated LLM is a program in its place that reads titles by fixed rules and costs nothing.",
    ),
    "distillation": Term(
        "distillation", "Further training of the student on ranked lists beside its sessions, to rank as they do."
    ),
    "selection": Term(
        "selection",
        "Which training sessions the LLM is asked about, since asking about all costs too much. ALKDRec chooses them "
        "by a game between difficulty and gain; Random draws them uniformly.",
    ),
    "counting": Term(
        "training-free method",
        "A method that counts which items occurred together in training sessions, and trains no parameters.",
    ),
    "control": Term(
        "control",
        "The same distillation with something else in place of the LLM's lists, such as lists of other sessions "
        "(Shuffled lists), to see what the lists themselves do.",
    ),
    "recall": Term("recall@k", "The share of test sessions whose next item is among the first k of the list."),
    "ndcg": Term(
        "NDCG@k", "As recall@k, but a hit at place r counts 1 / log2(r + 1): more at the top of the list, less below."
    ),
    "mrr": Term("MRR", "The mean of 1 / r over the test sessions, where r is the place of the next item in the list."),
    "tied": Term(
        "tied targets",
        "Test sessions whose next item has the same score as other items, so that its place is not clear.",
    ),
    "seed": Term(
        "seed", "The start of the random numbers. Models are trained once for each seed; the spread shows chance."
    ),
    "effective": Term(
        "effective, similar, incorrect",
        "A list is effective where it has the session's next item and the student's first 25 do not, similar where "
        "both do, and incorrect where it does not.",
    ),
    "significance": Term(
        "significance",
        "Whether a difference is larger than chance. The p-value is the probability of such a difference without any "
        "effect; Holm's correction raises it where many differences are tested.",
    ),
    "effect": Term("d_z", "The mean difference, divided by its standard deviation: its size without a unit."),
}
"""Key → word."""


def key_of(column: str) -> str:
    """Returns the key of a column's word, such as "recall" of "recall@10"; empty where it has none."""
    key = column.partition("@")[0].partition(" ")[0].lower()
    return key if key in TERMS else ""
