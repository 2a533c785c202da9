"""A run that trains one backbone on one dataset: its stages, in a folder that continues where it was interrupted."""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

import alkd_jax as alkd
from alkd_jax import evaluation, training
from alkd_jax.data.readers import registry
from alkd_jax.errors import reading
from alkd_jax.io import open_arrays, read_object, remove_folder, save_arrays, write_json
from alkd_jax.models import Encoder, Params
from alkd_jax.registry import is_outside, source_digest
from alkd_jax.serving import export
from alkd_jax.training import checkpoints

from . import distributed, interrupts, item_channels, run_folder
from .console import print_line, stage_bar, training_bar
from .protocols import protocol_inputs, rank_by_protocol, save_queries
from .run_folder import RunFolder
from .shipped import STUDENT
from .single_training import SingleTraining
from .stage_records import checked_output
from .stages import save_fit_result
from .stored_values import check_fields
from .train_options import Train

OPTIONS_FILE = "train.json"
"""The options of a run of `train`."""
_UNNAMED = frozenset({"out", "mesh", "distributed", "overwrite"})
"""Options that change no result."""
_PARALLEL = frozenset({"momentum", "loss_options"})
"""Options of sessions that are read in parallel."""
_OF_VECTORS = frozenset({"item_vectors", "vector_channel", "vector_scale", "shuffled_vectors"})
"""Options of vectors of the items."""
_LATER = frozenset({"refit", "seen", "targets_ranked"})
"""Options of later stages than training."""


@dataclasses.dataclass(frozen=True)
class SingleRun:
    """One run of `experiments.train`.

    Attributes:
        args: the options, resolved.
        dataset: its sessions and items.
        folder: where its stages store their outputs.
    """

    args: Train
    dataset: alkd.Dataset
    folder: RunFolder

    @classmethod
    def open(cls, args: Train, *, readonly: bool = False) -> Self:
        """Reads the data and opens the folder.

        Raises:
            ValueError: data, backbone or loss do not go together, or the folder holds another run.
        """
        source = registry.parse_source(args.source)
        dataset = source.read(alkd.Dataset, recipe=args.recipe, max_length=int(args.max_length or 1))
        shared = dataclasses.asdict(args) | {"out": str(args.out)}
        run = cls(args, dataset, RunFolder(args.out, print_line, stage_bar, overwrite=args.overwrite, run=shared))
        run.training.loss()
        identity = {"command": "train", "data": dataset.fingerprint, "dataset": dataset.name, "backbone": args.backbone}
        run.folder.open(identity | {"seed": args.seed}, readonly=readonly)
        if not readonly:
            run.folder.refuse_replacing({"train": run.train_inputs})
            write_json(args.out / OPTIONS_FILE, run.options)
        return run

    @classmethod
    def reopen(cls, path: pathlib.Path) -> Self:
        """Opens a finished run for reading, with the options stored in its folder.

        Raises:
            ValueError: the folder holds no such run, or its data have changed.
        """
        if not (path / OPTIONS_FILE).is_file():
            raise ValueError(f"{path} has no {OPTIONS_FILE}; expected the folder of a run of experiments.train")
        stored = read_object(path / OPTIONS_FILE)
        stored |= {name: json.dumps(stored[name]) for name in ("options", "loss_options") if name in stored}
        check_fields(path / OPTIONS_FILE, stored | {"out": path}, Train)
        with reading(path / OPTIONS_FILE, expected="the options of a run of experiments.train"):
            args = Train(**stored | {"out": path})
            args.check()
        return cls.open(args, readonly=True)

    @property
    def options(self) -> dict[str, Any]:
        """All options that change a result, as plain values; those of the backbone by name."""
        is_parallel = self.training.is_parallel
        left_out = _UNNAMED if is_parallel else _UNNAMED | _PARALLEL
        left_out |= _OF_VECTORS if self.args.item_vectors is None else frozenset()
        given = {name: value for name, value in dataclasses.asdict(self.args).items() if name not in left_out}
        parallel = {"loss_options": self.args.parallel_options} if is_parallel else {}
        return given | {"options": self.args.model_options} | parallel

    @property
    def train_inputs(self) -> dict[str, Any]:
        """What training depends on."""
        inputs = {name: value for name, value in self.options.items() if name not in _LATER | _OF_VECTORS}
        inputs |= item_channels.inputs(self.args)
        backbone = self.args.backbone
        return inputs | ({"sources": {backbone: source_digest(backbone)}} if is_outside(backbone) else {})

    @functools.cached_property
    def training(self) -> SingleTraining:
        """How the backbone is trained."""
        return SingleTraining(self.args, self.dataset)

    @property
    def model(self) -> Encoder:
        """The backbone, without parameters."""
        return self.training.model

    @property
    def mesh(self) -> jax.sharding.Mesh | None:
        """The device mesh; None for a single device."""
        return self.training.mesh

    @contextlib.contextmanager
    def monitored(self, name: str, title: str) -> Iterator[dict[str, Any]]:
        """Shows progress, logs the learning curves and saves checkpoints, as the runs of the pipeline do."""
        path = self.folder.path / "training" / name
        trackers = [training.JsonLines(path)] if distributed.leads() else []
        with training_bar(title) as show, training.reporting(show, trackers) as report:
            with interrupts.postponed() as is_interrupted:
                state = checkpoints.TrainingFolder(path / "state", every=1, interrupted=is_interrupted)
                yield {"progress": report, "checkpoints": state}

    def train_stage(self) -> None:
        """Trains all seeds with early stopping on validation."""
        args, steps = self.args, self.training.steps_per_epoch

        def write_outputs(folder: pathlib.Path) -> None:
            title = f"{args.backbone}, width {args.dim}, {args.seeds} seeds"
            with self.monitored("train", title) as watched:
                options = {"max_steps": steps * int(args.max_epochs or 1), "steps_per_validation": steps}
                fitted = self.training.fit(self.dataset, args.seeds, **options, **watched)
            save_fit_result(folder, "fitted", fitted)

        outputs, together = ["fitted", "fitted.history.npz"], ["train_stage"]
        self.folder.run_stage("train", self.train_inputs, outputs, write_outputs, together=together)
        self._remove_checkpoints("train")

    def refit_stage(self) -> None:
        """Trains every seed again on training and validation items, for the steps that its validation chose."""
        args, steps = self.args, self.training.steps_per_epoch
        if not args.refit:
            return

        def write_outputs(folder: pathlib.Path) -> None:
            recipe = registry.parse_source(args.source).recipe(args.recipe).refitted()
            source = registry.parse_source(args.source)
            dataset = source.read(alkd.Dataset, recipe=recipe, max_length=int(args.max_length or 1))
            seeds = []
            for number, best_step in enumerate(self.history("fitted", "best_step").tolist()):
                options = {"max_steps": max(best_step, steps), "steps_per_validation": steps, "keep_best": False}
                # The validation items are trained on, so that their recall stops nothing.
                options["patience"] = 2**31 - 1
                name = f"refit-{number}"
                with self.monitored(name, f"refit of seed {number}") as watched:
                    fitted = self.training.fit(dataset, [number], **options, **watched)
                seeds.append(fitted.params)
            params = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *seeds)
            checkpoints.save_params(folder / "refitted", params)

        inputs = {"refit": True, "steps_per_epoch": steps}
        self.folder.run_stage("refit", inputs, ["refitted"], write_outputs, after=["train"], together=["refit_stage"])
        for number in range(args.seeds):
            self._remove_checkpoints(f"refit-{number}")

    def _remove_checkpoints(self, name: str) -> None:
        state = self.folder.path / "training" / name / "state"
        if state.exists() and distributed.leads():
            remove_folder(state)

    def history(self, name: str, array: str) -> np.ndarray:
        """Returns an array of the learning curves."""
        with open_arrays(checked_output(self.folder.path, f"{name}.history.npz")) as archive:
            return archive[array]

    @property
    def trained_stage(self) -> str:
        """Name of the stage whose parameters are evaluated."""
        return "refit" if self.args.refit else "train"

    def params(self) -> Params:
        """Returns the parameters that are evaluated, with a seed axis."""
        stored_at = checked_output(self.folder.path, "refitted" if self.args.refit else "fitted")
        return checkpoints.restore_params(stored_at, self.model, seeds=self.args.seeds)

    def ranks_stage(self) -> None:
        """Ranks the test targets, and the validation targets by the parameters that validation chose."""
        protocol = self.args.protocol

        def write_outputs(folder: pathlib.Path) -> None:
            with stage_bar("evaluation"):
                test = rank_by_protocol(self.model, self.params(), self.dataset, protocol, lists=True, mesh=self.mesh)
            found = {"tied": [each.num_tied for each in test], "test": [each.metrics for each in test]}
            found["validation"] = self.validation_metrics()
            if not distributed.leads():
                return
            save_arrays(folder / "ranks.npz", **{self.args.backbone: np.stack([each.ranks for each in test])})
            write_json(folder / "evaluation.json", found)
            save_queries(folder / "queries.npz", self.dataset, protocol)

        inputs = protocol_inputs(protocol) | {"refit": self.args.refit}
        outputs = ["ranks.npz", "evaluation.json", "queries.npz"]
        after, together = [self.trained_stage], ["ranks_stage"]
        self.folder.run_stage("ranks", inputs, outputs, write_outputs, after=after, together=together)

    def validation_metrics(self) -> list[dict[str, float]]:
        """Returns the metrics of each seed on validation, of the parameters before a refit."""
        params = checkpoints.restore_params(
            checked_output(self.folder.path, "fitted"), self.model, seeds=self.args.seeds
        )
        options = {"seen": self.args.protocol.seen, "lists": False, "mesh": self.mesh}
        found = evaluation.evaluate_seeds(self.model, params, self.dataset.validation, **options)
        return [each.metrics for each in found]

    def student_stage(self) -> None:
        """Exports the model of the seed with the best validation recall."""
        best = int(self.history("fitted", "best_metric").argmax())

        def write_outputs(folder: pathlib.Path) -> None:
            params = jax.tree.map(lambda leaf: leaf[best], self.params())
            export.save(folder / STUDENT, self.model, params, self.dataset, card=export.Card(self.title(best)))

        try:
            export.backbone_options(self.model)
        except ValueError as error:
            print_line(f"{STUDENT} is left out: {error}", style="yellow")
            return
        inputs = {"seed": best, "refit": self.args.refit}
        self.folder.run_stage(STUDENT, inputs, [STUDENT], write_outputs, after=[self.trained_stage])

    def title(self, seed: int) -> str:
        """Returns the model in words."""
        args = self.args
        after = ", trained again with validation" if args.refit else ""
        return f"{args.backbone} of width {args.dim}, {args.loss}, seed {seed}{after}"


@functools.lru_cache(maxsize=1)
def _reopened(options: str) -> SingleRun:
    plain = json.loads(options)
    return SingleRun.open(Train(**plain | {"out": pathlib.Path(plain["out"])}), readonly=True)


take_part = functools.partial(run_folder.take_part, _reopened)
"""Function of a call of process 0, see :func:`run_folder.take_part`."""
