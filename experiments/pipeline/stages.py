"""The stages of a run: train, rate difficulty, select sessions, rank items with an LLM, distill, evaluate.

Each stage writes named files into the run's folder; the next stages read them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import evaluation, selection, training
from alkd_jax.io import open_arrays, read_json, remove_folder, save_arrays, write_json
from alkd_jax.llm.teachers import replay
from alkd_jax.models import Encoder
from alkd_jax.registry import path_safe
from alkd_jax.training import checkpoints

from . import (
    distributed,
    games,
    interrupts,
    item_channels,
    llm_files,
    llm_settings,
    method_lists,
    methods,
    run_folder,
    session_selection,
    teachers,
)
from .active_selections import ACTIVE_SELECTIONS
from .answers import candidates_of
from .console import stage_bar, training_bar
from .distill_methods import RECALL_AT
from .list_metrics import list_metrics
from .methods import needed_selections, role_of, stage_of, trained_methods
from .protocols import rank_by_protocol, save_queries
from .run import RunContext, first_seed, settings_from
from .stage_records import checked_output
from .training_free import rank_training_free


@dataclasses.dataclass(frozen=True)
class Run(RunContext):
    """A run with its stages; every stage runs only if its inputs have changed or its outputs are missing."""

    def training_free_stage(self) -> None:
        """Ranks the test targets by the training-free recommenders."""
        rank_training_free(self.dataset, self.folder, self.settings.protocol)

    def train_stage(self, role: str) -> None:
        """Trains the conventional "teacher" or the "student", all seeds in one call."""
        settings, inputs = self.settings, self.stage_inputs[role]
        digest = self.folder.stage_digest(inputs)

        def write_outputs(folder: pathlib.Path) -> None:
            model = self.model(role)
            title = f"{role} ({settings.backbone_of(role)}, width {model.dim}, {settings.seeds} seeds)"
            with self.monitored_training(role, title, digest) as fit_options:
                fitted = self.fit(
                    role, model, patience=inputs["patience"], recall_at=self.recall_at(RECALL_AT), **fit_options
                )
            save_fit_result(folder, role, fitted)

        outputs, together = [role, f"{role}.history.npz"], ["train_stage", role]
        self.folder.run_stage(role, inputs, outputs, write_outputs, together=together)
        self.remove_checkpoints(role)

    def fit(self, role: str, model: Encoder, **fit_options: Any) -> training.FitResult:
        """Trains a teacher, or a student, which may read vectors of the items.

        Args:
            role: "teacher" or "student".
            model: its backbone.
            **fit_options: options of :func:`alkd_jax.training.fit` beside those of the run.
        """
        key, train, validation = self.key(0 if role == "teacher" else 1), self.split("train"), self.split("validation")
        options: dict[str, Any] = self.fit_options | fit_options
        if role == "student" and self.settings.item_vectors is not None:
            vectors = item_channels.read(self.settings, self.dataset)
            options["make_loss"] = self.objective
            return training.fit_with_vectors(training.fit, key, model, vectors, train, validation, **options)
        return training.fit(key, model, train, validation, **self.training_options(role, model) | options)

    @contextlib.contextmanager
    def monitored_training(self, name: str, title: str, digest: str) -> Iterator[dict[str, Any]]:
        """Shows progress, logs learning curves and saves checkpoints while something trains.

        Ctrl-C and SIGTERM wait for the next validation, after which a checkpoint is saved.

        Args:
            name: folder below `training` for curves and checkpoints.
            title: names in the progress bar what is being trained.
            digest: of what the stage depends on; with other options it does not continue from these checkpoints.

        Yields:
            The options "progress" and "checkpoints" of :func:`alkd_jax.training.fit`.
        """
        training_folder = self.folder.path / "training" / name
        trackers: list[training.Tracker] = [training.JsonLines(training_folder)] if distributed.leads() else []
        if self.settings.tracker is not None and distributed.leads():
            run_name = f"{self.settings.out.name} {name}"
            trackers.append(training.make_tracker(self.settings.tracker, run_name, training_folder, self.config))
        with training_bar(title) as show, training.reporting(show, trackers) as report:
            with interrupts.postponed() as is_interrupted:
                path = training_folder / f"state-{digest[:16]}"
                state = checkpoints.TrainingFolder(path, interrupted=is_interrupted)
                yield {"progress": report, "checkpoints": state}

    def remove_checkpoints(self, name: str) -> None:
        """Removes the checkpoints of a training run of which the results are stored; the learning curves stay.

        Args:
            name: as of `monitored_training`.
        """
        if distributed.leads():
            for state in (self.folder.path / "training" / name).glob("state*"):
                remove_folder(state)

    def difficulty_stage(self) -> None:
        """Computes every training session's difficulty with the first seed's teacher (rule "difficulty": student)."""
        role = "student" if "difficulty" in self.settings.rules else "teacher"

        def write_outputs(folder: pathlib.Path) -> None:
            model, params = self.model(role), first_seed(self.params(role))
            train = self.split("train")
            with stage_bar("sessions", total=len(train)) as bar:
                difficulty = selection.session_difficulty(
                    model, params, train.items, train.mask, mesh=self.mesh, progress=bar.update
                )
            if distributed.leads():
                rank = selection.difficulty_rank(difficulty)
                save_arrays(folder / "difficulty.npz", difficulty=difficulty, rank=rank)

        inputs, together = self.stage_inputs["difficulty"], ["difficulty_stage"]
        self.folder.run_stage("difficulty", inputs, ["difficulty.npz"], write_outputs, after=[role], together=together)

    def policy_stage(self) -> None:
        """Solves the max-min game over the training sessions (rule "policy": by the paper's closed form)."""

        def write_outputs(folder: pathlib.Path) -> None:
            rank = jnp.asarray(self.load_array("difficulty.npz", "rank"))
            solution, log_unit = games.solve_game(self.settings, rank)
            save_arrays(
                folder / "policy.npz",
                log_policy=solution.log_policy,
                value=solution.value,
                lower=solution.lower,
                upper=solution.upper,
                log_scale=solution.log_scale + log_unit,
                support_size=solution.support_size,
            )

        self.folder.run_stage(
            "policy", self.stage_inputs["policy"], ["policy.npz"], write_outputs, after=["difficulty"]
        )

    def selection_stage(self) -> None:
        """Selects the sessions that the LLM is to rank, by every policy, or reads the authors' selections.

        The authors have none by active learning or by a selection from outside, which the run always makes itself.
        """
        is_released = self.settings.resolved_selection == "released"
        needed = needed_selections(self.settings.method_names)
        own_names = session_selection.made_by_the_run(needed, is_released=is_released)

        def write_outputs(folder: pathlib.Path) -> None:
            selections = {}
            if is_released:
                selections = session_selection.released_selections(self.settings, self.dataset)
            if own_names:
                answerable = self.answerable(np.asarray(self.dataset.train.session_id))
                selections |= session_selection.own_selections(self, answerable, own_names, needed)
            if distributed.leads():
                write_json(folder / "selection.json", {method: ids.tolist() for method, ids in selections.items()})

        inputs, after = self.stage_inputs["selection"], ["policy"] if own_names else []
        if set(own_names) & set(ACTIVE_SELECTIONS):
            after += ["student", "teacher"]
        outputs, together = ["selection.json"], ["selection_stage"] if own_names else []
        self.folder.run_stage("selection", inputs, outputs, write_outputs, after=after, together=together)

    def answerable(self, session_id: np.ndarray) -> np.ndarray:
        """Returns a mask ``[N]`` of the training sessions that can be ranked: all, or those with a recorded list."""
        if self.settings.resolved_teacher != "replay" and self.settings.candidates == "teacher":
            return np.ones(len(session_id), bool)
        return np.isin(session_id, teachers.load_recorded(self.settings, self.dataset)[0].session_id)

    def candidates_stage(self) -> None:
        """Computes the candidate items of each selected session, which the LLM is to rank."""

        def write_outputs(folder: pathlib.Path) -> None:
            replay.save_rankings(folder / "candidates.jsonl", candidates_of(self, self.selected_sessions()))

        inputs, after = self.stage_inputs["candidates"], ["teacher", "selection"]
        self.folder.run_stage("candidates", inputs, ["candidates.jsonl"], write_outputs, after=after)

    def rankings_stage(self) -> None:
        """Stores the teacher's ranking of each selected session's candidates; sends nothing to a server."""
        settings, inputs = self.settings, self.stage_inputs["rankings"]
        llm_answers = None
        if settings.resolved_teacher == "openai":
            llm_answers = llm_settings.stored_rankings(settings.out, self.dataset)
            if llm_answers[1]["open"] and not settings.accept_missing:
                raise llm_files.UnansweredError(
                    f"{len(llm_answers[1]['open'])} of {llm_answers[1]['asked']} sessions have no answer yet; "
                    f"{llm_files.usage_hint(settings.out)}, or continue with --accept-missing"
                )
            inputs["lists"] = hashlib.sha256(llm_answers[0].items.tobytes()).hexdigest()

        def write_outputs(folder: pathlib.Path) -> None:
            teacher = teachers.TEACHERS.find(settings.resolved_teacher)
            rankings, report = llm_answers or teacher.rank(settings, self.dataset)
            replay.save_rankings(folder / "rankings.jsonl", rankings, distinct="lists" not in self.settings.rules)
            write_json(folder / "rankings.report.json", report | {"teacher": settings.resolved_teacher})

        outputs = ["rankings.jsonl", "rankings.report.json"]
        self.folder.run_stage("rankings", inputs, outputs, write_outputs, after=["teacher", "selection", "candidates"])

    def lists_stage(self) -> None:
        """Stores the lists that every method learns from; the stage is cheap, so a new method recomputes them all."""
        names = self.settings.method_names

        def write_outputs(folder: pathlib.Path) -> None:
            arrays: dict[str, np.ndarray] = {}
            for method in names:
                if (lists := methods.lists_for(self, method)) is not None:
                    arrays |= {f"{method}/{name}": np.asarray(array) for name, array in vars(lists).items()}
            save_arrays(folder / "lists.npz", **arrays)

        inputs, after = self.stage_inputs["lists"], ["teacher", "selection", "rankings"]
        self.folder.run_stage("lists", inputs, ["lists.npz"], write_outputs, after=after)

    def load_lists(self, method: str) -> alkd.Rankings | None:
        """Loads the lists that a method learns from; None where the method needs no lists."""
        with open_arrays(checked_output(self.folder.path, "lists.npz")) as archive:
            if f"{method}/items" not in archive:
                return None
            return alkd.Rankings(*(archive[f"{method}/{name}"] for name in ("session_id", "items", "mask")))

    def distillation_stage(self, method: str) -> None:
        """Trains the students of a method, all seeds in one call."""
        settings, lists, name = self.settings, self.load_lists(method), path_safe(method)
        # This stage depends on the method's own lists and not on the stage "lists", which runs again for a new method.
        lists_digest = "" if lists is None else method_lists.digest_of(lists)
        inputs = self.stage_inputs[stage_of(method)] | {"lists": lists_digest}
        # A method that trains a model of the teacher's width itself, DSL, has no other teacher.
        after = ["student"] if role_of(method) == "wide" else ["student", "teacher"]
        digest = self.folder.stage_digest(inputs, after)

        def write_outputs(folder: pathlib.Path) -> None:
            title = f"{method} ({settings.backbone}, {settings.seeds} seeds)"
            with self.monitored_training(f"distilled/{name}", title, digest) as fit_options:
                fitted = methods.train_students(self, method, lists, **fit_options)
            (folder / "distilled").mkdir(exist_ok=True)
            save_fit_result(folder / "distilled", name, fitted)

        outputs = [f"distilled/{name}", f"distilled/{name}.history.npz"]
        together = ["distillation_stage", method]
        self.folder.run_stage(stage_of(method), inputs, outputs, write_outputs, after=after, together=together)
        self.remove_checkpoints(f"distilled/{name}")

    def ranks_stage(self) -> None:
        """Ranks the test targets with every trained model and seed, and adds the training-free ranks."""

        def write_outputs(folder: pathlib.Path) -> None:
            ranks: dict[str, np.ndarray] = {}
            tied: dict[str, list[int]] = {}
            released_ndcg: dict[str, dict[str, list[float]]] = {}
            protocol = self.settings.protocol
            for method, per_seed in self.evaluations("evaluation"):
                ranks[method] = np.stack([result.ranks for result in per_seed])
                tied[method] = [result.num_tied for result in per_seed]
                released_ndcg[method] = {
                    name: [result.metrics[name] for result in per_seed]
                    for name in per_seed[0].metrics
                    if "released" in name
                }
            if not distributed.leads():
                return
            with open_arrays(checked_output(self.folder.path, "training_free_ranks.npz")) as archive:
                ranks |= {method: archive[method][None] for method in archive}
            tied |= read_json(checked_output(self.folder.path, "training_free_tied.json"))
            save_arrays(folder / "ranks.npz", **ranks)
            write_json(folder / "tied.json", tied)
            save_queries(folder / "queries.npz", self.dataset, protocol)
            write_json(folder / "released_ndcg.json", released_ndcg)

        outputs = ["ranks.npz", "tied.json", "queries.npz", "released_ndcg.json"]
        after = ["training_free", "teacher", "student", *map(stage_of, self.settings.method_names)]
        inputs, together = self.stage_inputs["ranks"], ["ranks_stage"]
        self.folder.run_stage("ranks", inputs, outputs, write_outputs, after=after, together=together)

    def list_metrics_stage(self) -> None:
        """Computes coverage, Gini index, popularity and novelty of the test lists of every method and seed.

        It is a stage of its own, so that runs whose targets were ranked before it existed only add it.
        """

        def write_outputs(folder: pathlib.Path) -> None:
            of_lists = {
                method: list_metrics(self.dataset, [result.exposure for result in per_seed])
                for method, per_seed in self.evaluations("lists", lists=True)
            }
            if distributed.leads():
                of_lists |= read_json(checked_output(self.folder.path, "training_free_lists.json"))
                write_json(folder / "list_metrics.json", of_lists)

        inputs, together = self.stage_inputs["list_metrics"], ["list_metrics_stage"]
        outputs = ["list_metrics.json"]
        self.folder.run_stage("list_metrics", inputs, outputs, write_outputs, after=["ranks"], together=together)

    def evaluations(self, title: str, *, lists: bool = False) -> Iterator[tuple[str, list[evaluation.Evaluation]]]:
        """Yields every trained method with the evaluation of each seed on the test sessions.

        Args:
            title: names in the progress bar what is computed.
            lists: whether the items of the top-k lists are counted.
        """
        stored = trained_methods(self.settings.method_names)
        with stage_bar(title, total=len(stored)) as bar:
            for number, (method, stored_at) in enumerate(stored.items()):
                bar.update(number, status=method)
                model, params = self.model(role_of(method)), self.params(stored_at)
                protocol = self.settings.protocol
                yield method, rank_by_protocol(model, params, self.dataset, protocol, lists=lists, mesh=self.mesh)

    def stages_to_candidates(self) -> None:
        """Runs the unfinished stages up to the candidates, that is, all that come before an LLM is called."""
        self.training_free_stage()
        self.train_stage("teacher")
        self.train_stage("student")
        self.difficulty_stage()
        self.policy_stage()
        self.selection_stage()
        self.candidates_stage()

    def stages_from_rankings(self) -> None:
        """Runs the unfinished stages from the rankings on."""
        self.rankings_stage()
        self.lists_stage()
        for method in self.settings.method_names:
            self.distillation_stage(method)
        self.ranks_stage()
        self.list_metrics_stage()


@functools.lru_cache(maxsize=1)
def _reopened(settings: str) -> Run:
    return Run.open(settings_from(json.loads(settings)), readonly=True)


take_part = functools.partial(run_folder.take_part, _reopened)
"""Function of a call of process 0, see :func:`run_folder.take_part`."""


def save_fit_result(folder: pathlib.Path, name: str, fitted: training.FitResult) -> None:
    """Writes the parameters and the history of a training run."""
    checkpoints.save_params(folder / name, fitted.params)
    if not distributed.leads():
        return
    history = dataclasses.asdict(fitted.history)
    best = {"best_step": fitted.best_step, "best_metric": fitted.best_metric}
    save_arrays(
        folder / f"{name}.history.npz",
        **history,
        **best,
        sessions_per_second=fitted.sessions_per_second,
    )
