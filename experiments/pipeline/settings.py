"""What one run of the pipeline is asked to do."""

import dataclasses
import pathlib
from collections.abc import Mapping

from alkd_jax import sharding

from .methods import parse_methods
from .sources import parse_source

TEACHERS: Mapping[str, str] = {
    "replay": "recorded lists, with --rankings FILE",
    "simulated": "made up from titles",
    "openai": "a language model over HTTP",
    "conventional": "the recommender's own lists",
    "neighbor": "co-occurrence lists",
}
"""Who may rank the chosen sessions, and what each is."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run of the pipeline.

    Attributes:
        data: where the sessions come from, see `experiments.pipeline.sources`.
        backbone: of teacher and students.
        out: the run's folder.
        seeds: teachers and students trained, all in one program.
        mode: "clean", or "released" for the authors' code as it is.
        selection: "released" reads the authors' files, "own" solves the game for this run's teacher.
        methods: what is compared with the plain student, with commas between: "short" (Random, ALKDRec), "table1",
            "table2", "controls", "all", or single methods.
        budget: sessions the LLM is asked about, per selection; default the paper's, 750 for FPMC on Games, else 500.
        ratios: effective, similar and incorrect answers that the game reckons with.
        correction: share of the lists without the next item that are corrected: it is put first.
        student_dim: width of the student.
        teacher_dim: width of the teacher.
        max_steps: training steps at most, teacher, student and distillation each.
        teacher: who ranks the chosen sessions: "replay" recorded lists, "simulated" from titles, "openai" over HTTP,
            "conventional" for the recommender's own lists (TR), "neighbor" for co-occurrence lists; by default replay
            for released data and with rankings, simulated for the built-in world; prepared data have no default.
        rankings: file of recorded lists that replay reads in place of the authors' record.
        candidates: what is to be ranked: the "teacher"'s top 50, or the "recorded" lists filled up from these, to
            compare a live model with the record.
        model: that "openai" asks; without it the run stops before the paid hop and says how to ask.
        base_url: of any OpenAI-compatible server.
        budget_usd: dollars the run may spend on asking.
        min_valid: entries from which a list that falls short is used.
        accept_missing: goes on though the model was not asked about all sessions.
        accuracy: share of sessions that the simulated LLM answers faithfully.
        seed: of everything random.
        mesh: devices to compute on, as data=2,model=4: batches are cut along the first axis, item tables along the
            second; by default one device. A run may go on with another mesh.
    """

    data: str
    backbone: str
    out: pathlib.Path
    seeds: int = 5
    mode: str = "clean"
    selection: str = "released"
    methods: str = "short"
    budget: int | None = None
    ratios: tuple[int, int, int] = (1, 5, 4)
    correction: float = 0.0
    student_dim: int = 10
    teacher_dim: int = 100
    max_steps: int = 10_000
    teacher: str | None = None
    rankings: pathlib.Path | None = None
    candidates: str = "teacher"
    model: str | None = None
    base_url: str = "https://api.openai.com/v1"
    budget_usd: str | None = None
    min_valid: int = 20
    accept_missing: bool = False
    accuracy: float = 0.9
    seed: int = 0
    mesh: str | None = None

    @property
    def asked_methods(self) -> tuple[str, ...]:
        """The methods by name."""
        return parse_methods(self.methods)

    @property
    def num_asked(self) -> int:
        """The budget, or the paper's where none was given."""
        if self.budget is not None:
            return self.budget
        return 750 if parse_source(self.data).name == "Games" and self.backbone == "fpmc" else 500

    @property
    def ranker(self) -> str:
        """The teacher asked for, or the data's own.

        Raises:
            ValueError: none was asked for, and the data have none.
        """
        if self.teacher is not None:
            return self.teacher
        kind = "released" if self.rankings is not None else parse_source(self.data).kind
        if kind == "prepared":
            choices = "; ".join(f"{name}, {what}" for name, what in TEACHERS.items())
            raise ValueError(f"--data prepared:PATH needs --teacher, for nobody has ranked these sessions: {choices}")
        return "replay" if kind == "released" else "simulated"

    def check(self) -> None:
        """Raises ValueError on a setting that no hop can use."""
        parse_source(self.data)
        for name, value, known in (
            ("mode", self.mode, ("clean", "released")),
            ("selection", self.selection, ("own", "released")),
            ("candidates", self.candidates, ("teacher", "recorded")),
        ):
            if value not in known:
                raise ValueError(f"--{name} is {value!r}; expected {' or '.join(known)}")
        if self.ranker not in TEACHERS:
            raise ValueError(f"--teacher is {self.ranker!r}; expected {' or '.join(TEACHERS)}")
        parse_methods(self.methods)
        if self.mesh is not None:
            sharding.make_mesh(self.mesh)
        if self.selection == "released" and parse_source(self.data).kind != "released":
            raise ValueError("--selection released needs --data released:PATH:NAME")
        if self.ranker == "replay" and self.rankings is None and parse_source(self.data).kind != "released":
            raise ValueError("--teacher replay needs --rankings FILE or --data released:PATH:NAME")
        if self.candidates == "recorded" and parse_source(self.data).kind != "released":
            raise ValueError("--candidates recorded needs --data released:PATH:NAME")
        if (self.model is None) != (self.budget_usd is None):
            raise ValueError("--model and --budget-usd go together")
        for name, number in (
            ("seeds", self.seeds),
            ("budget", self.num_asked),
            ("student-dim", self.student_dim),
            ("teacher-dim", self.teacher_dim),
            ("max-steps", self.max_steps),
            ("min-valid", self.min_valid),
        ):
            if number < 1:
                raise ValueError(f"--{name} is {number}; expected at least 1")
        for name, share in (("accuracy", self.accuracy), ("correction", self.correction)):
            if not 0 <= share <= 1:
                raise ValueError(f"--{name} is {share}; expected 0..1")
        if min(self.ratios) < 0 or sum(self.ratios) == 0:
            raise ValueError(f"--ratios are {self.ratios}; expected three numbers, at least 0, not all 0")
