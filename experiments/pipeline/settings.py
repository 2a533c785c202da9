"""The settings of one run of the pipeline, which are the options of its commands."""

import dataclasses
import pathlib

from alkd_jax import models, paper_settings, sharding
from alkd_jax.checks import check_at_least, check_between, check_one_of
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.readers import registry
from alkd_jax.ops.precision import PRECISIONS

from .methods import parse_methods
from .teachers import TEACHERS


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run of the pipeline.

    Attributes:
        data: source of the sessions: synthetic, synthetic:SEED, released:PATH:NAME, prepared:PATH, or every source of
            experiments.prepare, whose raw data are prepared in memory by the recipe of the released data.
        backbone: architecture of teacher and students: fpmc, stamp, attmix, or package.module:attribute, a class of
            your own, see docs/own_parts.md.
        out: the run's folder.
        seeds: number of teachers and students to train, all in one program.
        mode: "clean", or "released" to repeat the authors' code with its bugs.
        selection: "released" reads the authors' files, "own" solves the game for this run's teacher; by default
            released for released data and own for all other.
        methods: methods to compare with the plain student, separated by commas: "short" (Random, ALKDRec), "table1",
            "table2", "controls", "all", or single methods, also package.module:attribute, a distillation method or a
            selection of your own.
        budget: number of sessions that the LLM ranks, per selection; by default the paper's, 750 for FPMC on Games and
            500 otherwise, but at most a fifth of the training sessions.
        ratios: effective, similar and incorrect answers that the game assumes, as a ratio of three numbers.
        correction: share of the lists without the next item that are corrected by inserting it at the first position.
        student_dim: width of the student.
        teacher_dim: width of the teacher.
        max_steps: maximum number of training steps of teacher, student and distillation, each.
        teacher: ranks the selected sessions: "replay" reads recorded lists, "simulated" ranks by titles without any
            language model, "openai" calls a language model over HTTP, "conventional" takes the recommender's own lists
            (TR), "neighbor" takes co-occurrence lists, and package.module:attribute is a teacher of your own; by
            default replay for released data and with rankings, simulated for synthetic data; prepared and raw data
            have no default.
        rankings: file of recorded lists that replay reads instead of the authors' file.
        candidates: the items to rank: the "teacher"'s top 50, or the "recorded" lists completed with these, to compare
            a language model with the recorded one.
        model: the language model of "openai"; without it the run stops before the paid stage and prints the command
            that calls the model.
        base_url: address of an OpenAI-compatible server.
        budget_usd: dollars that the run may spend on the language model.
        min_valid: number of valid entries from which an incomplete list of the language model is used.
        accept_missing: continue although some sessions have no answer of the language model.
        accuracy: share of sessions that the simulated LLM ranks by title; it ranks the others at random.
        seed: of all random numbers.
        mesh: devices to compute on, as data=2,model=4: batches are sharded along the first axis, item tables along the
            second; by default one device. A run may continue on another mesh.
        precision: of the products in training: float32, or tf32 or bfloat16, which accelerators compute faster. All
            ranks are computed in float32.
        overwrite: replace finished results in the folder, where they were made with other options or are damaged;
            without it such a command is refused, and lists them. More methods never replace results, and more seeds do,
            since one program trains the students of all seeds.
    """

    data: str
    backbone: str
    out: pathlib.Path
    seeds: int = 5
    mode: str = "clean"
    selection: str | None = None
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
    precision: str = "float32"
    overwrite: bool = False

    @property
    def method_names(self) -> tuple[str, ...]:
        """The names of the methods to compare."""
        return parse_methods(self.methods)

    @property
    def is_released_data(self) -> bool:
        """Whether the data are the authors' files, which have recorded lists and selections."""
        return registry.parse_source(self.data).kind == "released"

    @property
    def resolved_selection(self) -> str:
        """The selection that was set, or the default one of the data."""
        return self.selection or ("released" if self.is_released_data else "own")

    @property
    def resolved_budget(self) -> int:
        """The budget, or the paper's where none was set; an opened run has one that fits its data."""
        if self.budget is not None:
            return self.budget
        return paper_settings.settings_of(registry.parse_source(self.data).name).budget(self.backbone)

    @property
    def resolved_teacher(self) -> str:
        """The teacher that was set, or the default one of the data.

        Raises:
            ValueError: no teacher was set, and the data have no default one.
        """
        if self.teacher is not None:
            return self.teacher
        source = registry.parse_source(self.data)
        kind = "released" if self.rankings is not None else source.kind
        if kind == "prepared" or (kind != "released" and source.reader.result is Interactions):
            choices = "; ".join(f"{name}, {teacher.lists}" for name, teacher in TEACHERS.items())
            raise ValueError(
                f"--data {source.reader.form} needs --teacher, since no lists were recorded for it: {choices}"
            )
        return "replay" if kind == "released" else "simulated"

    def check(self) -> None:
        """Raises ValueError where a setting is invalid or two settings contradict each other."""
        registry.parse_source(self.data)
        check_one_of("--mode", self.mode, ("clean", "released"))
        check_one_of("--selection", self.resolved_selection, ("own", "released"))
        check_one_of("--candidates", self.candidates, ("teacher", "recorded"))
        check_one_of("--precision", self.precision, PRECISIONS)
        models.create(self.backbone, num_items=1, dim=1)
        TEACHERS.find(self.resolved_teacher)
        parse_methods(self.methods)
        if self.mesh is not None:
            sharding.make_mesh(self.mesh)
        is_released = self.is_released_data
        if self.resolved_selection == "released" and not is_released:
            raise ValueError("--selection released needs --data released:PATH:NAME; expected own for other data")
        if self.resolved_teacher == "replay" and self.rankings is None and not is_released:
            raise ValueError("--teacher replay needs --rankings FILE or --data released:PATH:NAME")
        if self.candidates == "recorded" and not is_released:
            raise ValueError("--candidates recorded needs --data released:PATH:NAME")
        if (self.model is None) != (self.budget_usd is None):
            raise ValueError("--model and --budget-usd go together")
        counts = {"--seeds": self.seeds, "--budget": self.resolved_budget, "--max-steps": self.max_steps}
        dims = {"--student-dim": self.student_dim, "--teacher-dim": self.teacher_dim}
        check_at_least(1, **counts, **dims, **{"--min-valid": self.min_valid})
        check_between(0, 1, **{"--accuracy": self.accuracy, "--correction": self.correction})
        if min(self.ratios) < 0 or sum(self.ratios) == 0:
            raise ValueError(f"--ratios is {self.ratios}; expected three numbers of at least 0, not all 0")
