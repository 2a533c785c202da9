"""Teachers that rank candidates: a language model online, recorded lists, and a simulation that reads titles."""

from alkd_jax.llm.teachers.online import OnlineTeacher, build_questions
from alkd_jax.llm.teachers.protocol import Teacher
from alkd_jax.llm.teachers.replay import ConventionalTeacher, ReplayTeacher
from alkd_jax.llm.teachers.simulated import SimulatedTeacher

__all__ = [
    "ConventionalTeacher",
    "OnlineTeacher",
    "ReplayTeacher",
    "SimulatedTeacher",
    "Teacher",
    "build_questions",
]
