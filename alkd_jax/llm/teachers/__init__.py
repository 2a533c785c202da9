"""Teachers that rank candidates: a language model online, recorded answers, and a simulation from titles."""

from alkd_jax.llm.teachers.online import (
    FAULTS,
    BatchTeacher,
    ConventionalTeacher,
    OnlineTeacher,
    ReplayTeacher,
    SimulatedTeacher,
    Teacher,
    as_rankings,
    build_questions,
    stored_lists,
)

__all__ = [
    "FAULTS",
    "BatchTeacher",
    "ConventionalTeacher",
    "OnlineTeacher",
    "ReplayTeacher",
    "SimulatedTeacher",
    "Teacher",
    "as_rankings",
    "build_questions",
    "stored_lists",
]
