"""The way of the data, hop by hop: train, rate, select, ask, distil, rank. Each hop leaves named files in the run."""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import checkpoints, evaluation, maxmin, neighbors, scoring, selection, training
from alkd_jax.distillation import alkd as alkd_distillation
from alkd_jax.llm import replay
from alkd_jax.models import Encoder, Params
from experiments import asking, rankers
from experiments.console import console, training_bar
from experiments.run_folder import RunFolder, read_json, write_json
from experiments.settings import Settings
from experiments.sources import parse_source

NEIGHBORS: Mapping[str, neighbors.Scorer] = {
    "Popularity": neighbors.popularity,
    "Markov": neighbors.markov,
    "Co-occurrence": neighbors.co_occurrence,
    "Item-kNN": neighbors.item_knn,
    "Item-kNN (recency)": functools.partial(neighbors.item_knn, recency=0.8),
    "Session-kNN": neighbors.session_knn,
}
ACTIVE = ("Random", "ALKDRec")
"""The selections whose sessions the LLM is asked about."""


@dataclasses.dataclass(frozen=True)
class Run:
    """Settings, data and folder of a run, and its hops."""

    settings: Settings
    dataset: alkd.Dataset
    folder: RunFolder

    @classmethod
    def open(cls, settings: Settings) -> "Run":
        """Checks the settings, reads the data, and opens the folder."""
        settings.check()
        dataset = parse_source(settings.data).load()
        alkd.models.create(settings.backbone, num_items=dataset.num_items, dim=settings.student_dim)
        folder = RunFolder(settings.out, announce=functools.partial(console.print, highlight=False, markup=False))
        identity = {"data": dataset.fingerprint, "dataset": dataset.name, "backbone": settings.backbone}
        folder.open(identity | {"mode": settings.mode, "seed": settings.seed})
        asked = dataclasses.asdict(settings)
        config = {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in asked.items()}
        write_json(folder.path / "config.json", config)
        counts = {split: len(getattr(dataset, split)) for split in ("train", "validation", "test")}
        about = {"name": dataset.name, "fingerprint": dataset.fingerprint, "items": dataset.num_items, "split": counts}
        write_json(folder.path / "data.json", about | {"report": dict(dataset.report)})
        return cls(settings, dataset, folder)

    @classmethod
    def reopen(cls, path: pathlib.Path) -> "Run":
        """Opens a run by the settings it was made with.

        Raises:
            ValueError: the folder is no run, or one of another version.
        """
        config = path / "config.json"
        if not config.exists():
            raise ValueError(f"{path} is no run's folder; expected one made by experiments.reproduce or .quickstart")
        try:
            settings = Settings(**(read_json(config) | {"out": path}))
        except TypeError as error:
            raise ValueError(f"{config}: settings of another version ({error})") from error
        rankings = settings.rankings
        return cls.open(dataclasses.replace(settings, rankings=None if rankings is None else pathlib.Path(rankings)))

    @property
    def released(self) -> bool:
        """Whether the authors' rules hold."""
        return self.settings.mode == "released"

    def split(self, name: str) -> alkd.Sessions:
        """A split as this mode's models see it."""
        sessions = getattr(self.dataset, name)
        return evaluation.released_view(sessions) if self.released else sessions

    def model(self, role: str) -> Encoder:
        """The backbone of "teacher" or "student"."""
        dim = self.settings.teacher_dim if role == "teacher" else self.settings.student_dim
        return alkd.models.create(self.settings.backbone, num_items=self.dataset.num_items, dim=dim)

    def key(self, purpose: int) -> jax.Array:
        """A random key of its own for every purpose."""
        return jax.random.fold_in(jax.random.key(self.settings.seed), purpose)

    def params(self, name: str) -> Params:
        """Stored parameters with a seed axis: "teacher", "student" or "distilled/METHOD"."""
        role = "teacher" if name == "teacher" else "student"
        return checkpoints.restore_params(self.folder.path / name, self.model(role), seeds=self.settings.seeds)

    def array(self, file: str, name: str) -> np.ndarray:
        """One array of an npz file of the run."""
        with np.load(self.folder.path / file) as archive:
            return archive[name]

    def hop_neighbors(self) -> None:
        """Ranks the test targets by the training-free recommenders."""

        def work(folder: pathlib.Path) -> None:
            counts = neighbors.count(self.dataset.train_sequences, self.dataset.num_items)
            ranks = {
                name: neighbors.rank_targets(method, counts, self.dataset.test) for name, method in NEIGHBORS.items()
            }
            np.savez(folder / "neighbor_ranks.npz", allow_pickle=False, **ranks)

        self.folder.hop("neighbors", {"methods": list(NEIGHBORS)}, ["neighbor_ranks.npz"], work)

    def hop_train(self, role: str) -> None:
        """Trains "teacher" or "student", all seeds in one program."""
        settings, patience = self.settings, 20 if role == "teacher" else 10

        def work(folder: pathlib.Path) -> None:
            model = self.model(role)
            with training_bar(f"{role} ({settings.backbone}, width {model.dim}, {settings.seeds} seeds)") as bar:
                fitted = training.fit(
                    self.key(0 if role == "teacher" else 1),
                    model,
                    self.split("train"),
                    self.split("validation"),
                    seeds=settings.seeds,
                    loss=training.in_batch_loss(model, released=self.released),
                    patience=patience,
                    max_steps=settings.max_steps,
                    progress=bar,
                )
            save_fitted(folder, role, fitted)

        inputs = {"dim": self.model(role).dim, "seeds": settings.seeds, "max_steps": settings.max_steps}
        self.folder.hop(role, inputs | {"patience": patience}, [role, f"{role}.history.npz"], work)

    def hop_difficulty(self) -> None:
        """Rates every training session with the first seed's teacher (released: student)."""
        judge = "student" if self.released else "teacher"

        def work(folder: pathlib.Path) -> None:
            model, params = self.model(judge), first_seed(self.params(judge))
            train = self.split("train")
            items, mask = jnp.asarray(train.items), jnp.asarray(train.mask)
            vectors = model.apply(params, items, mask)
            difficulty = selection.difficulty(vectors, model.apply(params, method="item_embeddings"), items, mask)
            np.savez(folder / "difficulty.npz", difficulty=difficulty, rank=selection.difficulty_rank(difficulty))

        self.folder.hop("difficulty", {}, ["difficulty.npz"], work, after=[judge])

    def hop_policy(self) -> None:
        """Solves the max-min game over the training sessions (released: by the paper's closed form)."""

        def work(folder: pathlib.Path) -> None:
            rank = jnp.asarray(self.array("difficulty.npz", "rank"))
            num_effective, num_similar, _ = selection.class_counts(len(rank))
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

        self.folder.hop(
            "policy",
            {"solver": "closed form" if self.released else "exact"},
            ["policy.npz"],
            work,
            after=["difficulty"],
        )

    def hop_selection(self) -> None:
        """Draws the sessions to ask about, or reads the authors' choice."""
        settings = self.settings

        def work(folder: pathlib.Path) -> None:
            session_id = np.asarray(self.dataset.train.session_id)
            if settings.selection == "released":
                chosen = {
                    method: self.released_choice(file)[: settings.num_asked]
                    for method, file in (("Random", "random"), ("ALKDRec", "ALKDRec"))
                }
            else:
                policies = {
                    "Random": selection.random_policy(len(session_id)),
                    "ALKDRec": jnp.asarray(self.array("policy.npz", "log_policy")),
                }
                can_be_asked = jnp.asarray(self.answerable(session_id))
                chosen = {
                    method: session_id[
                        selection.select(
                            self.key(10 + number),
                            jnp.where(can_be_asked, policy, -jnp.inf),
                            num=settings.num_asked,
                        )
                    ]
                    for number, (method, policy) in enumerate(policies.items())
                }
            write_json(folder / "selection.json", {method: ids.tolist() for method, ids in chosen.items()})

        inputs = {"selection": settings.selection, "budget": settings.num_asked}
        after = ["policy"] if settings.selection == "own" else []
        self.folder.hop("selection", inputs, ["selection.json"], work, after=after)

    def released_choice(self, method: str) -> np.ndarray:
        """The training sessions the authors chose."""
        source = parse_source(self.settings.data)
        return alkd.data.load_released_selection(source.path, source.name, method, dataset=self.dataset)

    def answerable(self, session_id: np.ndarray) -> np.ndarray:
        """Which training sessions the teacher can answer: all, or those with a recorded list."""
        if self.settings.ranker != "replay" and self.settings.candidates == "teacher":
            return np.ones(len(session_id), bool)
        return np.isin(session_id, rankers.recorded(self.settings, self.dataset)[0].session_id)

    def chosen_sessions(self) -> alkd.Sessions:
        """The training sessions the teacher is asked about, each once."""
        chosen = read_json(self.folder.path / "selection.json")
        asked = np.unique(np.concatenate([np.asarray(ids, np.int32) for ids in chosen.values()]))
        return jax.tree.map(lambda array: array[np.isin(self.dataset.train.session_id, asked)], self.dataset.train)

    def hop_candidates(self) -> None:
        """Writes down what the teacher is to rank, session by session."""

        def work(folder: pathlib.Path) -> None:
            sessions = self.chosen_sessions()
            items = self.candidates(sessions)
            if self.settings.candidates == "recorded":
                items = rankers.filled_up(rankers.recorded(self.settings, self.dataset)[0], sessions, items)
            replay.save_rankings(
                folder / "candidates.jsonl", alkd.Rankings(sessions.session_id, items, items != alkd.PAD)
            )

        inputs = {"candidates": self.settings.candidates}
        self.folder.hop("candidates", inputs, ["candidates.jsonl"], work, after=["teacher", "selection"])

    def hop_rankings(self) -> None:
        """Has the chosen sessions ranked, each once, by whoever the settings name; asks no server."""
        settings = self.settings
        inputs: dict[str, Any] = {"teacher": settings.ranker, "accuracy": settings.accuracy}
        answered = None
        if settings.ranker == "openai":
            answered = asking.answered_lists(settings.out, self.dataset)
            if answered[1]["open"] and not settings.accept_missing:
                raise ValueError(
                    f"{len(answered[1]['open'])} of {answered[1]['asked']} sessions are not answered yet; "
                    f"{asking.command(settings.out)}, or go on with --accept-missing"
                )
            inputs["lists"] = hashlib.sha256(answered[0].items.tobytes()).hexdigest()
        if settings.rankings is not None:
            inputs["file"] = hashlib.sha256(settings.rankings.read_bytes()).hexdigest()

        def work(folder: pathlib.Path) -> None:
            rankings, report = answered or rankers.ranked(settings, self.dataset)
            replay.save_rankings(folder / "rankings.jsonl", rankings, distinct=not self.released)
            write_json(folder / "rankings.report.json", report | {"teacher": settings.ranker})

        outputs = ["rankings.jsonl", "rankings.report.json"]
        self.folder.hop("rankings", inputs, outputs, work, after=["teacher", "selection", "candidates"])

    def candidates(self, sessions: alkd.Sessions, *, num: int = 50, role: str = "teacher") -> np.ndarray:
        """The top items of each session by the first seed's teacher (or student); 0 fills a short list."""
        model, params = self.model(role), first_seed(self.params(role))
        items, mask = jnp.asarray(sessions.items), jnp.asarray(sessions.mask)
        table = model.apply(params, method="item_embeddings")
        _, ids = scoring.top_k(model.apply(params, items, mask), table, num, exclude=items)
        return np.maximum(np.asarray(ids), alkd.PAD)

    def rankings(self) -> alkd.Rankings:
        """What the LLM, or its stand-in, answered."""
        path = self.folder.path / "rankings.jsonl"
        return replay.load_rankings(path, num_items=self.dataset.num_items, distinct=not self.released)

    def hop_distil(self, method: str, number: int) -> None:
        """Distils one selection's lists into every seed's student."""
        settings, model = self.settings, self.model("student")

        def work(folder: pathlib.Path) -> None:
            lists = replay.load_rankings(self.folder.path / "rankings.jsonl", num_items=self.dataset.num_items)
            lists, _ = replay.replay(
                lists, np.asarray(read_json(self.folder.path / "selection.json")[method], np.int32)
            )
            with training_bar(f"distil {method} ({len(lists)} lists, {settings.seeds} seeds)") as bar:
                fitted = alkd_distillation.distil(
                    self.key(20 + number),
                    model,
                    self.params("student"),
                    self.split("train"),
                    self.split("validation"),
                    lists,
                    released=self.released,
                    seeds=settings.seeds,
                    recall_at=alkd_distillation.RECALL_AT[settings.backbone],
                    max_steps=settings.max_steps,
                    progress=bar,
                )
            (folder / "distilled").mkdir()
            save_fitted(folder / "distilled", method, fitted)

        outputs = [f"distilled/{method}", f"distilled/{method}.history.npz"]
        after = ["student", "selection", "rankings"]
        self.folder.hop(f"distil-{method}", {"max_steps": settings.max_steps}, outputs, work, after=after)

    def hop_ranks(self) -> None:
        """Ranks the test targets with every trained model, seed by seed; the training-free ranks go beside them."""

        def work(folder: pathlib.Path) -> None:
            ranks: dict[str, np.ndarray] = {}
            released_ndcg: dict[str, dict[str, list[float]]] = {}
            for method, place in trained_methods().items():
                model = self.model("teacher" if place == "teacher" else "student")
                outs = evaluation.evaluate_seeds(
                    model, self.params(place), self.dataset.test, protocol=self.settings.mode
                )
                ranks[method] = np.stack([out.ranks for out in outs])
                released_ndcg[method] = {
                    name: [out.metrics[name] for out in outs] for name in outs[0].metrics if "released" in name
                }
            with np.load(self.folder.path / "neighbor_ranks.npz") as archive:
                ranks |= {method: archive[method][None] for method in archive}
            np.savez(folder / "ranks.npz", allow_pickle=False, **ranks)
            write_json(folder / "released_ndcg.json", released_ndcg)

        after = ["neighbors", "teacher", "student", *(f"distil-{method}" for method in ACTIVE)]
        self.folder.hop("ranks", {}, ["ranks.npz", "released_ndcg.json"], work, after=after)

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
        for number, method in enumerate(ACTIVE):
            self.hop_distil(method, number)
        self.hop_ranks()


def trained_methods() -> dict[str, str]:
    """Method → where its parameters lie in the run's folder."""
    return {"Student": "student", "Teacher": "teacher"} | {method: f"distilled/{method}" for method in ACTIVE}


def first_seed(params: Params) -> Params:
    """The first of the parameters with a seed axis."""
    return jax.tree.map(lambda leaf: leaf[0], params)


def save_fitted(folder: pathlib.Path, name: str, fitted: training.Fitted) -> None:
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
