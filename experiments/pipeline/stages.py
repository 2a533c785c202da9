"""The way of the data, hop by hop: train, rate, select, ask, distil, rank. Each hop leaves named files in the run."""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import baselines, evaluation, maxmin, selection, training
from alkd_jax.io import write_json
from alkd_jax.llm.teachers import replay
from alkd_jax.training import checkpoints

from ..reporting.console import training_bar
from . import distill_methods, llm_settings, offline_teachers, session_selection
from .methods import chosen_by, role_of, trained_methods
from .run import OpenRun, first_seed
from .run_folder import RunFolder

NEIGHBORS: Mapping[str, baselines.Scorer] = {
    "Popularity": baselines.popularity,
    "Markov": baselines.markov,
    "Co-occurrence": baselines.co_occurrence,
    "Item-kNN": baselines.item_knn,
    "Item-kNN (recency)": functools.partial(baselines.item_knn, recency=0.8),
    "Session-kNN": baselines.session_knn,
    "Sequential rules": baselines.sequential_rules,
    "Sequential rules (both ways)": functools.partial(baselines.sequential_rules, backward=0.5),
}


@dataclasses.dataclass(frozen=True)
class Run(OpenRun):
    """An open run and its hops."""

    def hop_neighbors(self) -> None:
        """Ranks the test targets by the training-free recommenders."""
        rank_by_counting(self.dataset, self.folder)

    def hop_train(self, role: str) -> None:
        """Trains "teacher" or "student", all seeds in one program."""
        settings, patience = self.settings, 20 if role == "teacher" else 10

        def work(folder: pathlib.Path) -> None:
            model = self.model(role)
            loss, loss_inputs = self.objective(model)
            title = f"{role} ({settings.backbone}, width {model.dim}, {settings.seeds} seeds)"
            with self.watched(role, title) as watching:
                fitted = training.fit(
                    self.key(0 if role == "teacher" else 1),
                    model,
                    self.split("train"),
                    self.split("validation"),
                    seeds=settings.seeds,
                    loss=loss,
                    loss_inputs=loss_inputs,
                    patience=patience,
                    max_steps=settings.max_steps,
                    mesh=self.mesh,
                    **watching,
                )
            save_fitted(folder, role, fitted)

        inputs: dict[str, Any] = {"dim": self.model(role).dim, "seeds": settings.seeds, "max_steps": settings.max_steps}
        if self.base_loss != "bpr":
            inputs["loss"] = self.base_loss
        self.folder.stage(role, inputs | {"patience": patience}, [role, f"{role}.history.npz"], work)

    @contextlib.contextmanager
    def watched(self, name: str, title: str) -> Iterator[dict[str, Any]]:
        """Shows and keeps training in progress: what to hand to `fit`. What was kept goes when training is done."""
        kept = self.folder.path / "training" / name
        with training_bar(title) as bar, training.curve_log(kept) as log:

            def both(now: training.Progress) -> None:
                bar(now)
                log(now)

            yield {"progress": both, "checkpoints": checkpoints.TrainingFolder(kept / "state")}
        shutil.rmtree(kept / "state")

    def hop_difficulty(self) -> None:
        """Rates every training session with the first seed's teacher (released: student)."""
        judge = "student" if self.released else "teacher"

        def work(folder: pathlib.Path) -> None:
            model, params = self.model(judge), first_seed(self.params(judge))
            train = self.split("train")
            difficulty = selection.session_difficulty(model, params, train.items, train.mask, mesh=self.mesh)
            np.savez(folder / "difficulty.npz", difficulty=difficulty, rank=selection.difficulty_rank(difficulty))

        self.folder.stage("difficulty", {}, ["difficulty.npz"], work, after=[judge])

    def hop_policy(self) -> None:
        """Solves the max-min game over the training sessions (released: by the paper's closed form)."""

        def work(folder: pathlib.Path) -> None:
            rank = jnp.asarray(self.array("difficulty.npz", "rank"))
            num_effective, num_similar, _ = selection.class_counts(len(rank), self.settings.ratios)
            gains = selection.gains(rank)
            solver = functools.partial(maxmin.closed_form, drop_last=True) if self.released else maxmin.solve
            solution = solver(
                gains.effective,
                gains.similar,
                gains.incorrect,
                num_effective=num_effective,
                num_similar=num_similar,
                log_gains=True,
            )
            np.savez(
                folder / "policy.npz",
                log_policy=solution.log_policy,
                value=solution.value,
                lower=solution.lower,
                upper=solution.upper,
                log_scale=solution.log_scale + gains.log_scale,
                support_size=solution.support_size,
            )

        self.folder.stage(
            "policy",
            {"solver": "closed form" if self.released else "exact", "ratios": list(self.settings.ratios)},
            ["policy.npz"],
            work,
            after=["difficulty"],
        )

    def hop_selection(self) -> None:
        """Draws the sessions to ask about, or reads the authors' choice."""
        settings = self.settings

        def work(folder: pathlib.Path) -> None:
            if settings.selection == "released":
                chosen = session_selection.released_choices(self)
            else:
                chosen = session_selection.own_choices(self, self.answerable(np.asarray(self.dataset.train.session_id)))
            write_json(folder / "selection.json", {method: ids.tolist() for method, ids in chosen.items()})

        inputs = {"selection": settings.selection, "budget": settings.num_asked}
        after = ["policy"] if settings.selection == "own" else []
        self.folder.stage("selection", inputs, ["selection.json"], work, after=after)

    def answerable(self, session_id: np.ndarray) -> np.ndarray:
        """Which training sessions the teacher can answer: all, or those with a recorded list."""
        if self.settings.ranker != "replay" and self.settings.candidates == "teacher":
            return np.ones(len(session_id), bool)
        return np.isin(session_id, offline_teachers.recorded(self.settings, self.dataset)[0].session_id)

    def hop_candidates(self) -> None:
        """Writes down what the teacher is to rank, session by session."""

        def work(folder: pathlib.Path) -> None:
            sessions = self.chosen_sessions()
            items = self.candidates(sessions)
            if self.settings.candidates == "recorded":
                items = offline_teachers.filled_up(
                    offline_teachers.recorded(self.settings, self.dataset)[0], sessions, items
                )
            replay.save_rankings(
                folder / "candidates.jsonl", alkd.Rankings(sessions.session_id, items, items != alkd.PAD)
            )

        inputs = {"candidates": self.settings.candidates, "asked": list(chosen_by(self.settings.asked_methods))}
        self.folder.stage("candidates", inputs, ["candidates.jsonl"], work, after=["teacher", "selection"])

    def hop_rankings(self) -> None:
        """Has the chosen sessions ranked, each once, by whoever the settings name; asks no server."""
        settings = self.settings
        inputs: dict[str, Any] = {"teacher": settings.ranker, "accuracy": settings.accuracy}
        answered = None
        if settings.ranker == "openai":
            answered = llm_settings.answered_lists(settings.out, self.dataset)
            if answered[1]["open"] and not settings.accept_missing:
                raise ValueError(
                    f"{len(answered[1]['open'])} of {answered[1]['asked']} sessions are not answered yet; "
                    f"{llm_settings.command(settings.out)}, or go on with --accept-missing"
                )
            inputs["lists"] = hashlib.sha256(answered[0].items.tobytes()).hexdigest()
        if settings.rankings is not None:
            inputs["file"] = hashlib.sha256(settings.rankings.read_bytes()).hexdigest()

        def work(folder: pathlib.Path) -> None:
            rankings, report = answered or offline_teachers.ranked(settings, self.dataset)
            replay.save_rankings(folder / "rankings.jsonl", rankings, distinct=not self.released)
            write_json(folder / "rankings.report.json", report | {"teacher": settings.ranker})

        outputs = ["rankings.jsonl", "rankings.report.json"]
        self.folder.stage("rankings", inputs, outputs, work, after=["teacher", "selection", "candidates"])

    def hop_lists(self) -> None:
        """Puts together what every method learns from; small next to training, so all anew where one is new."""
        methods = self.settings.asked_methods

        def work(folder: pathlib.Path) -> None:
            arrays: dict[str, np.ndarray] = {}
            for method in methods:
                if (lists := distill_methods.lists_of(self, method)) is not None:
                    arrays |= {f"{method}/{name}": np.asarray(array) for name, array in vars(lists).items()}
            np.savez(folder / "lists.npz", allow_pickle=False, **arrays)

        inputs = {"methods": list(methods), "correction": self.settings.correction}
        self.folder.stage("lists", inputs, ["lists.npz"], work, after=["teacher", "selection", "rankings"])

    def lists(self, method: str) -> alkd.Rankings | None:
        """What a method learns from; None where it needs no lists."""
        with np.load(self.folder.path / "lists.npz") as archive:
            if f"{method}/items" not in archive:
                return None
            return alkd.Rankings(*(archive[f"{method}/{name}"] for name in ("session_id", "items", "mask")))

    def hop_distil(self, method: str) -> None:
        """Makes every seed's student of a method."""
        settings, lists = self.settings, self.lists(method)

        def work(folder: pathlib.Path) -> None:
            title = f"{method} ({settings.backbone}, {settings.seeds} seeds)"
            with self.watched(f"distilled/{method}", title) as watching:
                fitted = distill_methods.distilled(self, method, lists, **watching)
            (folder / "distilled").mkdir()
            save_fitted(folder / "distilled", method, fitted)

        # The lists themselves and not their hop: it is run again when another method joins.
        learned = "" if lists is None else distill_methods.digest(lists)
        inputs = {"max_steps": settings.max_steps, "lists": learned}
        outputs = [f"distilled/{method}", f"distilled/{method}.history.npz"]
        after = ["student"] if method == "DSL" else ["student", "teacher"]
        self.folder.stage(f"distil-{method}", inputs | self.tuned(method), outputs, work, after=after)

    def hop_ranks(self) -> None:
        """Ranks the test targets with every trained model, seed by seed; the training-free ranks go beside them."""

        def work(folder: pathlib.Path) -> None:
            ranks: dict[str, np.ndarray] = {}
            released_ndcg: dict[str, dict[str, list[float]]] = {}
            for method, place in trained_methods(self.settings.asked_methods).items():
                model = self.model(role_of(method))
                outs = evaluation.evaluate_seeds(
                    model, self.params(place), self.dataset.test, protocol=self.settings.mode, mesh=self.mesh
                )
                ranks[method] = np.stack([out.ranks for out in outs])
                released_ndcg[method] = {
                    name: [out.metrics[name] for out in outs] for name in outs[0].metrics if "released" in name
                }
            with np.load(self.folder.path / "neighbor_ranks.npz") as archive:
                ranks |= {method: archive[method][None] for method in archive}
            np.savez(folder / "ranks.npz", allow_pickle=False, **ranks)
            write_json(folder / "released_ndcg.json", released_ndcg)

        methods = self.settings.asked_methods
        after = ["neighbors", "teacher", "student", *(f"distil-{method}" for method in methods)]
        self.folder.stage("ranks", {"methods": list(methods)}, ["ranks.npz", "released_ndcg.json"], work, after=after)

    def hops_to_candidates(self) -> None:
        """Runs what is not done yet of all that comes before the teacher is asked."""
        self.hop_neighbors()
        self.hop_train("teacher")
        self.hop_train("student")
        self.hop_difficulty()
        self.hop_policy()
        self.hop_selection()
        self.hop_candidates()

    def hops_from_rankings(self) -> None:
        """Runs what is not done yet of all that comes after."""
        self.hop_rankings()
        self.hop_lists()
        for method in self.settings.asked_methods:
            self.hop_distil(method)
        self.hop_ranks()


def rank_by_counting(dataset: alkd.Dataset, run_folder: RunFolder) -> None:
    """The hop that ranks the test targets by the training-free recommenders."""

    def work(folder: pathlib.Path) -> None:
        counts = baselines.count(dataset.train_sequences, dataset.num_items)
        ranks = {name: baselines.rank_targets(method, counts, dataset.test) for name, method in NEIGHBORS.items()}
        np.savez(folder / "neighbor_ranks.npz", allow_pickle=False, **ranks)

    run_folder.stage("neighbors", {"methods": list(NEIGHBORS)}, ["neighbor_ranks.npz"], work)


def save_fitted(folder: pathlib.Path, name: str, fitted: training.FitResult) -> None:
    """Writes the parameters and the learning curves of a training run."""
    checkpoints.save_params(folder / name, fitted.params)
    history = dataclasses.asdict(fitted.history)
    best = {"best_step": fitted.best_step, "best_metric": fitted.best_metric}
    np.savez(
        folder / f"{name}.history.npz",
        allow_pickle=False,
        **history,
        **best,
        sessions_per_second=fitted.sessions_per_second,
    )
