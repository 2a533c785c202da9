"""A run opened: its settings, data and folder, and what any part of it may read."""

import dataclasses
import functools
import pathlib
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import evaluation, objectives, samplers, scoring, sharding
from alkd_jax.io import read_json, write_json
from alkd_jax.llm.teachers import replay
from alkd_jax.models import Encoder, Params
from alkd_jax.objectives import Loss
from alkd_jax.training import checkpoints

from ..reporting.console import console
from .methods import chosen_by, role_of
from .run_folder import RunFolder
from .settings import Settings
from .sources import parse_source


@dataclasses.dataclass(frozen=True)
class OpenRun:
    """Settings, data and folder of a run."""

    settings: Settings
    dataset: alkd.Dataset
    folder: RunFolder

    @classmethod
    def open(cls, settings: Settings, *, readonly: bool = False) -> Self:
        """Checks the settings, reads the data, and opens the folder.

        Args:
            settings: of the run.
            readonly: look only, while another process may be working in the folder; hops are then not to be run.

        Raises:
            ValueError: the settings cannot be, or another process works in the folder.
        """
        settings.check()
        dataset = parse_source(settings.data).load()
        alkd.models.create(settings.backbone, num_items=dataset.num_items, dim=settings.student_dim)
        folder = RunFolder(settings.out, announce=functools.partial(console.print, highlight=False, markup=False))
        identity = {"data": dataset.fingerprint, "dataset": dataset.name, "backbone": settings.backbone}
        folder.open(identity | {"mode": settings.mode, "seed": settings.seed}, readonly=readonly)
        if readonly:
            return cls(settings, dataset, folder)
        asked = dataclasses.asdict(settings)
        # Where a run is computed is no part of what it is.
        del asked["mesh"]
        config = {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in asked.items()}
        write_json(folder.path / "config.json", config)
        counts = {split: len(getattr(dataset, split)) for split in ("train", "validation", "test")}
        about = {"name": dataset.name, "fingerprint": dataset.fingerprint, "items": dataset.num_items, "split": counts}
        write_json(folder.path / "data.json", about | {"report": dict(dataset.report)})
        return cls(settings, dataset, folder)

    @classmethod
    def reopen(cls, path: pathlib.Path, *, readonly: bool = False) -> Self:
        """Opens a run by the settings it was made with.

        Args:
            path: the run's folder.
            readonly: as in `open`.

        Raises:
            ValueError: the folder is no run, or one of another version, or another process works in it.
        """
        config = path / "config.json"
        if not config.exists():
            raise ValueError(f"{path} is no run's folder; expected one made by experiments.reproduce or .quickstart")
        try:
            held = read_json(config) | {"out": path}
            settings = Settings(**(held | ({"ratios": tuple(held["ratios"])} if "ratios" in held else {})))
        except TypeError as error:
            raise ValueError(f"{config}: settings of another version ({error})") from error
        rankings = settings.rankings
        settings = dataclasses.replace(settings, rankings=None if rankings is None else pathlib.Path(rankings))
        return cls.open(settings, readonly=readonly)

    @property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The devices to compute on; None for one."""
        return None if self.settings.mesh is None else sharding.make_mesh(self.settings.mesh)

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

    @property
    def base_loss(self) -> str:
        """Binary cross-entropy for AttMix on ML, as the authors trained it, in-batch BPR for everything else."""
        return "bce" if self.settings.backbone == "attmix" and self.dataset.name == "ML" else "bpr"

    def objective(self, model: Encoder) -> tuple[Loss, dict[str, Any]]:
        """The loss that a backbone is trained with, and what it finds aside."""
        if self.base_loss == "bce":
            return objectives.sampled_loss(model, "bce"), {"sampler": samplers.uniform(self.dataset.num_items)}
        return objectives.in_batch_loss(model, released=self.released), {}

    def searches(self) -> dict[str, Any]:
        """Every search for options, by method: what was tried and chosen, `tuning.json`."""
        file = self.folder.path / "tuning.json"
        return read_json(file) if file.exists() else {}

    def tuned(self, method: str) -> dict[str, Any]:
        """Options that a search has chosen for a method of this run; none where it keeps its defaults."""
        return dict(self.searches().get(method, {}).get("chosen", {}))

    def key(self, purpose: int) -> jax.Array:
        """A random key of its own for every purpose."""
        return jax.random.fold_in(jax.random.key(self.settings.seed), purpose)

    def params(self, name: str) -> Params:
        """Stored parameters with a seed axis: "teacher", "student" or "distilled/METHOD"."""
        return checkpoints.restore_params(self.folder.path / name, self.model_at(name), seeds=self.settings.seeds)

    def model_at(self, name: str) -> Encoder:
        """The backbone whose parameters lie at "teacher", "student" or "distilled/METHOD"."""
        return self.model(name if name in ("teacher", "student") else role_of(name.removeprefix("distilled/")))

    def array(self, file: str, name: str) -> np.ndarray:
        """One array of an npz file of the run."""
        with np.load(self.folder.path / file) as archive:
            return archive[name]

    def chosen_sessions(self) -> alkd.Sessions:
        """The training sessions the teacher is asked about, each once."""
        chosen = read_json(self.folder.path / "selection.json")
        needed = chosen_by(self.settings.asked_methods)
        asked = np.unique(np.concatenate([np.asarray(chosen[name], np.int32) for name in needed]))
        return jax.tree.map(lambda array: array[np.isin(self.dataset.train.session_id, asked)], self.dataset.train)

    def candidates(self, sessions: alkd.Sessions, *, num: int = 50, name: str = "teacher") -> np.ndarray:
        """The top items of each session by the first seed's parameters of that name; 0 fills a short list."""
        model, params = self.model_at(name), first_seed(self.params(name))
        items, mask = jnp.asarray(sessions.items), jnp.asarray(sessions.mask)
        table = model.apply(params, method="item_embeddings")
        _, ids = scoring.top_k(model.apply(params, items, mask), table, num, exclude=items)
        return np.maximum(np.asarray(ids), alkd.PAD)

    def rankings(self) -> alkd.Rankings:
        """What the LLM, or its stand-in, answered."""
        path = self.folder.path / "rankings.jsonl"
        return replay.load_rankings(path, num_items=self.dataset.num_items, distinct=not self.released)


def first_seed(params: Params) -> Params:
    """The first of the parameters with a seed axis."""
    return jax.tree.map(lambda leaf: leaf[0], params)
