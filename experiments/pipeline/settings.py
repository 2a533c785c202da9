"""The settings of one run of the pipeline, which are the options of its commands."""

import dataclasses
import pathlib
from typing import Annotated

import tyro

from alkd_jax import models, paper_settings, sharding, training
from alkd_jax.checks import check_at_least, check_between, check_one_of, check_share
from alkd_jax.data.interactions import Interactions
from alkd_jax.data.readers import registry
from alkd_jax.distillation.alkdrec import FORMS_OF_LOSS
from alkd_jax.evaluation import Protocol
from alkd_jax.ops.precision import PRECISIONS
from alkd_jax.selection import UNCERTAINTIES

from . import item_channels, light_options, options
from .llm_options import DEFAULT_MIN_VALID, LLMSettings
from .methods import METHODS, PROFILES, SETS, parse_methods
from .protocols import check_protocol
from .rules import STOPPING, protocol_rules, rules_of
from .teachers import TEACHERS

_LARGEST_DIM = 65_536

_TEACHER = (
    "what ranks the selected sessions: "
    + "; ".join(f'"{name}", {entry.lists}' for name, entry in TEACHERS.items())
    + "; or a teacher of your own, see docs/own_parts.md. By default replay for released data and with rankings, and "
    "simulated for synthetic data; prepared and raw data have no default."
)

Methods = Annotated[
    str,
    tyro.conf.arg(
        metavar="NAME[,NAME ...]",
        help="methods to compare with the plain student, separated by commas: the sets "
        f"{', '.join(SETS)}, or single methods: {', '.join(METHODS)}, or {options.OWN}, a distillation method or a "
        "selection of your own, see docs/own_parts.md.",
    ),
]
Teacher = Annotated[str | None, light_options.choices(TEACHERS, own=True, help=_TEACHER)]


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run of the pipeline; the options that other commands have, too, are described in `pipeline.options`.

    Attributes:
        out: the run's folder.
        ratios: effective, similar and incorrect answers that the game assumes, as a ratio of three numbers.
        uncertainty: the probability with which M-RARU accepts a session.
        selection_rounds: number of rounds in which Rounds selects; after each, its lists are distilled and difficulty
            is estimated again.
        pilot_share: share of the budget that Measured gains selects at random, to measure the game's shares and gains.
        correction: share of the lists without the next item that are corrected by inserting it at the first position.
        student_dim: width of the student.
        candidates: the items to rank: the "teacher"'s top 50, or the "recorded" lists completed with these, to compare
            a language model with the recorded one.
        model: the language model of "openai"; without it the run stops before the paid stage and prints the command
            that calls the model.
        llm_seed: of the language model's sampling, or "none" for servers that take none; by default 0.
        accept_missing: continue although some sessions have no answer of the language model.
        seed: of all random numbers.
        tracker: also log the learning curves to Weights & Biases, MLflow or TensorBoard, whose package has to be
            installed. They are in FOLDER/training in any case.
        profile: folder for a profile of the work, which TensorBoard and XProf show; by default none is made.
    """

    data: options.Data
    backbone: options.Backbone
    out: pathlib.Path
    seeds: options.Seeds = 5
    mode: options.Mode = "clean"
    seen: options.Seen = "exclude"
    targets: options.Targets = "last"
    selection: options.Selection = None
    methods: Methods = "short"
    budget: options.Budget = None
    ratios: tuple[int, int, int] = (1, 5, 4)
    uncertainty: Annotated[str, light_options.choices(UNCERTAINTIES)] = UNCERTAINTIES[0]
    selection_rounds: int = 4
    pilot_share: float = 0.2
    correction: float = 0.0
    list_loss: Annotated[
        str,
        options.choices(
            FORMS_OF_LOSS,
            help="loss of the distilled lists: the paper's pairs of session and listed item, or one of whole lists.",
        ),
    ] = "bpr"
    student_dim: int = 10
    item_vectors: item_channels.VectorsFile = None
    vector_channel: item_channels.Channel = "graph_pca"
    vector_scale: item_channels.Scale = 0.03
    shuffled_vectors: item_channels.Shuffled = False
    profile_vectors: options.ProfileVectors = None
    teacher_dim: options.TeacherDim = 100
    teacher_backbone: options.TeacherBackbone = None
    max_steps: options.MaxSteps = 10_000
    teacher: Teacher = None
    rankings: options.RankingsFile = None
    candidates: Annotated[str, light_options.choices(("teacher", "recorded"))] = "teacher"
    model: str | None = None
    base_url: light_options.BaseUrl = "https://api.openai.com/v1"
    budget_usd: light_options.BudgetUsd = None
    api_key_env: light_options.ApiKeyEnv = None
    prices: light_options.PricesFile = None
    reasoning_effort: light_options.ReasoningEffort = None
    max_output_tokens: light_options.MaxOutputTokens = None
    llm_seed: str | None = None
    extra_body: light_options.ExtraBody = None
    min_valid: light_options.MinValid = DEFAULT_MIN_VALID
    accept_missing: bool = False
    accuracy: options.Accuracy = 0.9
    seed: int = 0
    mesh: options.Mesh = None
    distributed: options.Distributed = None
    precision: options.Precision = "float32"
    overwrite: options.Overwrite = False
    tracker: Annotated[str | None, light_options.choices(training.TRACKERS)] = None
    profile: pathlib.Path | None = None

    @property
    def rules(self) -> frozenset[str]:
        """The rules of the authors' code that the run repeats, see `pipeline.rules`.

        Raises:
            ValueError: the mode names an unknown rule, or one twice.
        """
        return rules_of(self.mode)

    @property
    def authors_rules(self) -> frozenset[str]:
        """The rules without the one that no code of the authors has."""
        return self.rules - {STOPPING}

    @property
    def method_names(self) -> tuple[str, ...]:
        """The names of the methods to compare."""
        return parse_methods(self.methods)

    def backbone_of(self, role: str) -> str:
        """Returns the backbone of the "teacher", or of all other models."""
        return (self.teacher_backbone or self.backbone) if role == "teacher" else self.backbone

    @property
    def is_released_data(self) -> bool:
        """Whether the data are the authors' files, which have recorded lists and selections."""
        return registry.parse_source(self.data).kind == "released"

    @property
    def resolved_selection(self) -> str:
        """The selection that was set, or the default one of the data."""
        return self.selection or ("released" if self.is_released_data else "own")

    @property
    def protocol(self) -> Protocol:
        """How the test sessions are evaluated."""
        return Protocol(seen=self.seen, targets=self.targets, rules=protocol_rules(self.rules))

    @property
    def language_model(self) -> LLMSettings | None:
        """Server, model and limits of a language model that this command asks itself, else None."""
        if self.resolved_teacher != "openai" or self.model is None:
            return None
        return LLMSettings(
            self.out,
            self.model,
            self.base_url,
            self.budget_usd,
            min_valid=self.min_valid,
            api_key_env=self.api_key_env,
            prices=self.prices,
            reasoning_effort=self.reasoning_effort,
            max_output_tokens=self.max_output_tokens,
            seed=self.llm_seed,
            extra_body=self.extra_body,
        )

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
        check_protocol(self.seen, self.targets, mode=self.mode)
        check_one_of("--selection", self.resolved_selection, ("own", "released"))
        check_one_of("--list-loss", self.list_loss, FORMS_OF_LOSS)
        if self.authors_rules and self.list_loss != "bpr":
            raise ValueError(
                f"--list-loss is {self.list_loss} with --mode {self.mode}; expected bpr, the authors' loss"
            )
        check_one_of("--uncertainty", self.uncertainty, UNCERTAINTIES)
        check_one_of("--candidates", self.candidates, ("teacher", "recorded"))
        item_channels.check(self)
        if self.authors_rules and self.item_vectors is not None:
            raise ValueError(f"--item-vectors is {self.item_vectors} with --mode {self.mode}; expected --mode clean")
        if self.tracker is not None:
            check_one_of("--tracker", self.tracker, training.TRACKERS)
        check_one_of("--precision", self.precision, PRECISIONS)
        for role, dim in (("student", self.student_dim), ("teacher", self.teacher_dim)):
            models.create(self.backbone_of(role), num_items=1_000, dim=max(1, dim))
        if self.authors_rules and self.teacher_backbone not in (None, self.backbone):
            raise ValueError(
                f"--teacher-backbone is {self.teacher_backbone} with --mode {self.mode}; expected {self.backbone}, as "
                "in the authors' code"
            )
        TEACHERS.find(self.resolved_teacher)
        if PROFILES in parse_methods(self.methods) and self.profile_vectors is None:
            raise ValueError(f"--methods names {PROFILES} without --profile-vectors; expected a file of them")
        if self.mesh is not None:
            sharding.make_mesh(self.mesh)
        is_released = self.is_released_data
        if self.resolved_selection == "released" and not is_released:
            raise ValueError("--selection released needs --data released:PATH:NAME; expected own for other data")
        if self.resolved_teacher == "replay" and self.rankings is None and not is_released:
            raise ValueError("--teacher replay needs --rankings FILE or --data released:PATH:NAME")
        if self.candidates == "recorded" and not is_released:
            raise ValueError("--candidates recorded needs --data released:PATH:NAME")
        if self.model is not None and self.resolved_teacher != "openai":
            teacher = self.resolved_teacher
            raise ValueError(f"--model is {self.model} with --teacher {teacher}; expected --teacher openai")
        if self.model is None and self.budget_usd is not None:
            raise ValueError(f"--budget-usd is {self.budget_usd} without --model; expected both")
        if (language_model := self.language_model) is not None:
            language_model.check_budget()
            _ = language_model.endpoint
        if self.model is None and self.min_valid != DEFAULT_MIN_VALID:
            raise ValueError(
                f"--min-valid is {self.min_valid} without --model; expected it as an option of experiments.query_llm, "
                "which then asks the model"
            )
        counts = {"--seeds": self.seeds, "--budget": self.resolved_budget, "--max-steps": self.max_steps}
        dims = {"--student-dim": self.student_dim, "--teacher-dim": self.teacher_dim}
        check_at_least(1, **counts, **{"--min-valid": self.min_valid, "--selection-rounds": self.selection_rounds})
        check_share("--pilot-share", self.pilot_share)
        check_between(1, _LARGEST_DIM, **dims)
        # JAX makes a key of the lower 32 bits.
        check_between(0, 2**32 - 1, **{"--seed": self.seed})
        check_between(0, 1, **{"--accuracy": self.accuracy, "--correction": self.correction})
        if min(self.ratios) < 0 or sum(self.ratios) == 0:
            raise ValueError(f"--ratios is {self.ratios}; expected three numbers of at least 0, not all 0")
