"""The context of a run: its settings, dataset and folder, and the arrays and parameters that its stages have stored."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import evaluation, objectives, paper_settings, samplers, scoring, sharding
from alkd_jax.data.readers import registry
from alkd_jax.distillation import TeacherModel
from alkd_jax.errors import reading, shown
from alkd_jax.io import open_arrays, read_json, read_object, write_json
from alkd_jax.llm.teachers import replay
from alkd_jax.models import Encoder, Params
from alkd_jax.training import checkpoints

from . import dataset_checks, stage_records
from .backbone_defaults import defaults_of, has_max_length
from .console import print_line, stage_bar
from .loss_names import make_loss
from .methods import needed_selections, role_of, trained_methods
from .rules import STOPPING, mode_of
from .run_folder import CONFIG_FILE, RunFolder, config_of
from .settings import Settings
from .stage_inputs import stage_inputs
from .stage_records import checked_output
from .stored_values import check_fields
from .tuning_file import read_tuning


@dataclasses.dataclass(frozen=True)
class RunContext:
    """One run: what it computes, on which data, and where.

    Attributes:
        settings: the options of the run.
        dataset: its sessions and items.
        folder: where its stages store their outputs.
    """

    settings: Settings
    dataset: alkd.Dataset
    folder: RunFolder

    @classmethod
    def open(cls, settings: Settings, *, readonly: bool = False) -> Self:
        """Checks the settings, reads the dataset, and opens the folder.

        Args:
            settings: of the run.
            readonly: only read, while another process may be working in the folder; no stage may run then.

        Raises:
            ValueError: a setting is invalid, the folder holds another run or results that the settings would replace,
                or another process works in it.
        """
        for option, file in (("--rankings", settings.rankings), ("--profile-vectors", settings.profile_vectors)):
            if file is not None and not file.is_file():
                found = "is no regular file; expected one" if file.exists() else "no such file"
                raise ValueError(f"{option}: {file}: {found}")
        run = cls._open(settings, readonly=readonly, is_checked=not readonly)
        if not readonly:
            run.folder.refuse_replacing(run.stage_inputs)
            run._write_settings()
        return run

    @classmethod
    def _open(cls, settings: Settings, *, readonly: bool, is_checked: bool = False) -> Self:
        settings.check()
        dataset = registry.read(settings.data)
        settings = dataset_checks.fit_to(settings, dataset)
        shared = plain_settings(settings)
        folder = RunFolder(settings.out, print_line, stage_bar, overwrite=settings.overwrite, run=shared)
        identity: dict[str, Any] = {"data": dataset.fingerprint, "dataset": dataset.name, "backbone": settings.backbone}
        identity |= {"mode": mode_of(settings.rules), "seed": settings.seed, "precision": settings.precision}
        identity |= {"teacher_backbone": settings.backbone_of("teacher")}
        run = cls(settings, dataset, folder)
        if is_checked:
            finished, inputs = folder.finished_stages, run.stage_inputs
            # A finished selection shows that its settings can be carried out on these data.
            if any(finished.get(name, {}).get("inputs") != inputs[name] for name in ("policy", "selection")):
                dataset_checks.check(settings, dataset)
            dataset_checks.announce(settings, dataset)
        defaults = {"precision": "float32", "teacher_backbone": settings.backbone}
        folder.open(identity, defaults=defaults, readonly=readonly)
        if not readonly:
            if (folder.path / CONFIG_FILE).exists() and any("inputs" not in r for r in folder.finished_stages.values()):
                former = dataclasses.replace(run, settings=stored_settings(folder.path))
                stage_records.add_inputs(folder.path, former.stage_inputs)
        return run

    @property
    def config(self) -> dict[str, Any]:
        """The content of `config.json`: the settings as plain values."""
        options = plain_settings(self.settings)
        # The devices that compute a run do not belong to its identity, nor do a permission, a copy of the curves and a
        # profile.
        for name in ("mesh", "distributed", "overwrite", "tracker", "profile"):
            del options[name]
        return options

    def _write_settings(self) -> None:
        """Writes `config.json` and `data.json`, which say how the run was made and on which data."""
        write_json(self.folder.path / CONFIG_FILE, self.config)
        dataset = self.dataset
        counts = {split: len(getattr(dataset, split)) for split in ("train", "validation", "test")}
        data = {"name": dataset.name, "fingerprint": dataset.fingerprint, "items": dataset.num_items, "split": counts}
        write_json(self.folder.path / "data.json", data | {"report": dict(dataset.report)})

    @classmethod
    def reopen(cls, path: pathlib.Path, *, readonly: bool = False) -> Self:
        """Opens an existing run with the settings stored in its folder.

        Args:
            path: the run's folder.
            readonly: as in `open`.

        Raises:
            ValueError: the folder holds no run or one of an earlier version, or another process works in it.
        """
        return cls._open(stored_settings(path), readonly=readonly)

    @classmethod
    def reopen_finished(cls, path: pathlib.Path) -> Self:
        """Opens a finished run to read it.

        Args:
            path: the run's folder.

        Raises:
            ValueError: as of `reopen`, or the run is not finished.
        """
        run = cls.reopen(path, readonly=True)
        if "ranks" not in run.folder.finished_stages:
            raise ValueError(f"{path} is not a finished run; run experiments.reproduce on it first")
        return run

    @property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The device mesh; None for a single device."""
        return None if self.settings.mesh is None else sharding.make_mesh(self.settings.mesh)

    def split(self, name: str) -> alkd.Sessions:
        """Returns a split as the models of this mode read it.

        Args:
            name: "train", "validation" or "test".
        """
        rules = self.settings.rules
        sessions = getattr(self.dataset, "test" if name == "validation" and STOPPING in rules else name)
        return evaluation.released_view(sessions) if "padding" in rules else sessions

    def model(self, role: str) -> Encoder:
        """Returns a backbone without parameters: the "teacher", the "student", or the student's as a "wide" one."""
        dim = self.settings.student_dim if role == "student" else self.settings.teacher_dim
        backbone, length = self.settings.backbone_of(role), self.dataset.train.items.shape[1]
        options = {"max_length": length} if has_max_length(backbone) else {}
        return alkd.models.create(backbone, num_items=self.dataset.num_items, dim=dim, **options)

    @property
    def base_loss(self) -> str:
        """The name of the loss: binary cross-entropy for AttMix on ML, as released; otherwise in-batch BPR."""
        return paper_settings.settings_of(self.dataset.name).loss(self.settings.backbone)

    def objective(self, model: Encoder) -> objectives.Objective:
        """Returns the objective that a backbone is trained with."""
        if self.base_loss == "bce":
            return objectives.SampledLoss(model, samplers.uniform(self.dataset.num_items), "bce")
        return objectives.InBatchBPR(model, released="loss" in self.settings.rules)

    def training_options(self, role: str, model: Encoder) -> dict[str, Any]:
        """Returns examples and loss of teacher or student.

        A teacher of another backbone than the paper's is trained as in its publication. Students have the loss that
        every method distills with, so that a method's gain is not that of another loss.
        """
        published = defaults_of(self.settings.backbone_of(role), parallel=False)
        if role != "teacher" or published.targets == "last":
            return {"loss": self.objective(model)}
        sampling: dict[str, Any] = {"num_negatives": published.num_negatives, "negatives": published.negatives}
        loss = make_loss(published.loss, model, self.dataset, targets=published.targets, **sampling)
        sequences, size = self.dataset.train_sequences, published.batch_size
        return {"loss": loss, "targets": published.targets, "sequences": sequences, "batch_size": size}

    @property
    def fit_options(self) -> dict[str, Any]:
        """The options of :func:`alkd_jax.training.fit` that all trainings of the run share."""
        settings = self.settings
        return {
            "seeds": settings.seeds,
            "max_steps": settings.max_steps,
            "mesh": self.mesh,
            "precision": settings.precision,
        }

    def recall_at(self, k: int) -> int:
        """Returns k of a validation recall, at most a quarter of the items.

        The recall among nearly all items of a small catalogue is 1 for all parameters, so that it would stop training
        at once and keep the first ones.

        Args:
            k: for a large catalogue.
        """
        return min(k, max(1, self.dataset.num_items // 4))

    def teacher(self) -> TeacherModel:
        """Returns the conventional teacher of the first seed."""
        return TeacherModel(self.model("teacher"), self.first_params("teacher"))

    @property
    def stage_inputs(self) -> dict[str, dict[str, Any]]:
        """Stage → the options that it depends on, see :func:`stage_inputs.stage_inputs`."""
        tuned = {method: self.tuned_options(method) for method in self.settings.method_names}
        return stage_inputs(self.settings, self.dataset.name, tuned)

    def tuning_results(self) -> dict[str, Any]:
        """Returns method → the options that `experiments.tune` tried and chose; empty where nothing was tuned."""
        return read_tuning(self.folder.path)

    def tuned_options(self, method: str) -> dict[str, Any]:
        """Returns the options that `experiments.tune` chose for a method; empty where the method keeps its defaults."""
        return dict(self.tuning_results().get(method, {}).get("chosen", {}))

    def key(self, purpose: int) -> jax.Array:
        """Returns the random key of a purpose, a number that no other purpose has."""
        return jax.random.fold_in(jax.random.key(self.settings.seed), purpose)

    def params(self, name: str) -> Params:
        """Loads the parameters, with a leading seed axis, stored under a path of :func:`trained_methods`."""
        stored_at = checked_output(self.folder.path, name)
        return checkpoints.restore_params(stored_at, self.model_for(name), seeds=self.settings.seeds)

    def first_params(self, name: str) -> Params:
        """Loads the first seed's parameters, without the seed axis; see `params`."""
        return first_seed(self.params(name))

    def model_for(self, name: str) -> Encoder:
        """Returns the backbone of the parameters stored under a path of :func:`trained_methods`."""
        methods = {path: method for method, path in trained_methods(self.settings.method_names).items()}
        return self.model(role_of(methods[name]))

    def load_array(self, file: str, name: str) -> np.ndarray:
        """Loads one array of an npz file in the run's folder."""
        with open_arrays(checked_output(self.folder.path, file)) as archive:
            return archive[name]

    def selected_sessions(self) -> alkd.Sessions:
        """Returns the training sessions that the LLM ranks: those of every selection that a method needs, each once."""
        selections = read_json(checked_output(self.folder.path, "selection.json"))
        names = needed_selections(self.settings.method_names)
        if missing := [name for name in names if name not in selections]:
            raise ValueError(
                f"--methods need the selection {', '.join(missing)}, which found fewer than {self.settings.budget} "
                "sessions; expected a smaller --budget, or other methods"
            )
        session_id = np.unique(np.concatenate([np.asarray(selections[name], np.int32) for name in names]))
        return self.dataset.train.take(np.isin(self.dataset.train.session_id, session_id))

    def candidates(self, sessions: alkd.Sessions, *, num: int = 50, name: str = "teacher") -> alkd.Rankings:
        """Ranks the items for each session with the first seed's parameters.

        Args:
            sessions: whose items are not ranked again.
            num: length of a list.
            name: where the parameters are stored, as in `params`.

        Raises:
            ValueError: a parameter is not finite.
        """
        model, params = self.model_for(name), self.first_params(name)
        alkd.models.check_params(model, params)
        items, mask = jnp.asarray(sessions.items), jnp.asarray(sessions.mask)
        table = model.apply(params, method="item_embeddings")
        _, ids = scoring.top_k(model.apply(params, items, mask), table, num, exclude=items)
        return alkd.Rankings.from_top_k(sessions.session_id, ids)

    def rankings(self) -> alkd.Rankings:
        """Loads the lists of the LLM, or of the teacher that replaces it."""
        path = checked_output(self.folder.path, "rankings.jsonl")
        return replay.load_rankings(path, num_items=self.dataset.num_items, distinct="lists" not in self.settings.rules)


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Returns settings as values that JSON has."""
    options = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Settings)}
    return {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in options.items()}


def stored_settings(path: pathlib.Path) -> Settings:
    """Reads the settings of an existing run.

    Args:
        path: the run's folder.

    Raises:
        ValueError: the folder holds no run or one of an earlier version, or the settings are damaged.
    """
    config = config_of(path)
    stored = read_object(config)
    unknown = stored.keys() - {field.name for field in dataclasses.fields(Settings)}
    if unknown or not {"data", "backbone"} <= stored.keys():
        names = ", ".join(map(shown, sorted(unknown))) or "no data or backbone"
        raise ValueError(f"{config} holds settings of another version: {names}; choose another folder")
    check_fields(config, stored | {"out": path}, Settings)
    with reading(config, expected=f"the settings of a run; repeat the command that made {path}, which writes them"):
        settings = settings_from(stored | {"out": path})
        settings.check()
    return settings


def settings_from(plain: Mapping[str, Any]) -> Settings:
    """Returns the settings of plain values."""
    names = ("out", "rankings", "profile_vectors")
    paths = {name: pathlib.Path(plain[name]) for name in names if plain.get(name) is not None}
    ratios = {"ratios": tuple(plain["ratios"])} if "ratios" in plain else {}
    return Settings(**{**plain, **paths, **ratios})


def first_seed(params: Params) -> Params:
    """Returns the parameters of the first seed, without the seed axis."""
    return jax.tree.map(lambda leaf: leaf[0], params)
