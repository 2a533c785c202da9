"""The web page of a student: its weights, its teacher's and a counting method's, and a script that scores sessions."""

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import TypeAlias

import alkd_jax as alkd
from alkd_jax.serving.recommender import Recommender

from .pages import render_page
from .played_models import COUNTING_METHOD, Playground, counting_model, make_playground, vector_model

FILE = "student.html"
"""Name of the page beside a shipped student."""

Other: TypeAlias = tuple[str, Callable[[], Recommender]]
"""Name of a model that is shown beside a student, and what makes it."""


def student_page(name: str, student: Recommender, others: Sequence[Other], dataset: alkd.Dataset) -> str:
    """Returns the page of a student, in HTML without any reference to another file.

    Args:
        name: the student in words.
        student: as it would be shipped.
        others: the models shown beside it; one that a page cannot score, or that is too large, is named there.
        dataset: of its training.

    Raises:
        ValueError: a page cannot score the student's backbone, or it would be too large.
    """
    play = playground([(name, lambda: student)], others, dataset)
    shown = [model.name for model in play.models]
    return render_page(
        "student.html.jinja",
        title=f"{name}: a student to play with",
        about=(
            f"This page holds {', '.join(shown)}, with the {dataset.num_items:,} titles of {dataset.name}. It computes "
            "their lists in your browser: nothing is loaded, and nothing that you type leaves the page."
        ),
        play=play,
        play_note=play_note(student.length),
        facts=f"alkd_jax {importlib.metadata.version('alkd_jax')}; dataset {dataset.name}, {dataset.fingerprint}.",
    )


def playground(students: Sequence[Other], others: Sequence[Other], dataset: alkd.Dataset) -> Playground:
    """Returns the models of a page: the students, without which there is none, others, and sequential rules.

    Raises:
        ValueError: a page cannot score a student's backbone, or it would be too large.
    """
    models, unscored = [vector_model(name, make()) for name, make in students], []
    for name, make in others:
        try:
            models.append(vector_model(name, make()))
        except ValueError as error:
            unscored.append(f"{name} is left out: {error}.")
    models.append(counting_model(COUNTING_METHOD, dataset))
    play = make_playground(models, dataset, num_required=len(students))
    return Playground(play.models, (*unscored, *play.left_out), play.content)


def play_note(length: int) -> str:
    """Returns what a reader should know of the lists.

    Args:
        length: L, the number of most recent items that the models read.
    """
    return (
        f"Each list holds the best titles that are not in the session. The models read its last {length} titles. "
        f"{COUNTING_METHOD} count what came after each title in the training sessions, and train nothing."
    )
