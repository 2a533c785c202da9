"""Teachers that rank candidates: a language model online, recorded lists, and a simulation that reads titles."""

from alkd_jax.llm.teachers.online import OnlineTeacher, build_questions
from alkd_jax.llm.teachers.protocol import Teacher
from alkd_jax.llm.teachers.replay import ConventionalTeacher, ReplayTeacher
from alkd_jax.llm.teachers.simulated import SimulatedTeacher
from alkd_jax.llm.teachers.simulated_items import name_by_similarity

__all__ = [
    "ConventionalTeacher",
    "OnlineTeacher",
    "ReplayTeacher",
    "SimulatedTeacher",
    "Teacher",
    "build_questions",
    "name_by_similarity",
]
