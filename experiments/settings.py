"""What one run of the pipeline is asked to do."""

import dataclasses
import pathlib

from experiments.sources import parse_source


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run of the pipeline.

    Attributes:
        data: where the sessions come from, see `experiments.sources`.
        backbone: of teacher and students.
        out: the run's folder.
        seeds: teachers and students trained, all in one program.
        mode: "clean", or "released" for the authors' code as it is.
        selection: "released" reads the authors' files, "own" solves the game for this run's teacher.
        budget: sessions the LLM is asked about, per selection; default the paper's, 750 for FPMC on Games, else 500.
        student_dim: width of the student.
        teacher_dim: width of the teacher.
        max_steps: training steps at most, teacher, student and distillation each.
        accuracy: share of sessions that the simulated LLM answers faithfully (built-in world only).
        seed: of everything random.
    """

    data: str
    backbone: str
    out: pathlib.Path
    seeds: int = 5
    mode: str = "clean"
    selection: str = "released"
    budget: int | None = None
    student_dim: int = 10
    teacher_dim: int = 100
    max_steps: int = 10_000
    accuracy: float = 0.9
    seed: int = 0

    @property
    def num_asked(self) -> int:
        """The budget, or the paper's where none was given."""
        if self.budget is not None:
            return self.budget
        return 750 if parse_source(self.data).name == "Games" and self.backbone == "fpmc" else 500

    def check(self) -> None:
        """Raises ValueError on a setting that no hop can use."""
        for name, value, known in (
            ("mode", self.mode, ("clean", "released")),
            ("selection", self.selection, ("own", "released")),
        ):
            if value not in known:
                raise ValueError(f"--{name} is {value!r}; expected {' or '.join(known)}")
        if self.selection == "released" and parse_source(self.data).kind != "released":
            raise ValueError("--selection released needs --data released:PATH:NAME")
        for name, number in (
            ("seeds", self.seeds),
            ("budget", self.num_asked),
            ("student-dim", self.student_dim),
            ("teacher-dim", self.teacher_dim),
            ("max-steps", self.max_steps),
        ):
            if number < 1:
                raise ValueError(f"--{name} is {number}; expected at least 1")
        if not 0 <= self.accuracy <= 1:
            raise ValueError(f"--accuracy is {self.accuracy}; expected 0..1")
