"""RecBole's own STAMP and FPMC on the same sessions: its readers, loaders, negative sampling, models and evaluation.

Its loss is BPR with one uniform negative per session, which is less work than in-batch scores, and its FPMC reads only
the last item and a user factor. So it is a reference for throughput, not the same computation. It needs `pip install
--no-deps recbole==1.2.1`, the packages that RecBole imports, and pandas 2. Without them the benchmarks omit this peer.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import pathlib
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import alkd_jax as alkd

MODELS = {"fpmc": "FPMC", "stamp": "STAMP"}
"""Our name of a backbone → RecBole's, for those that it has."""


def _why_absent() -> str | None:
    for name in ("recbole", "torch", "pandas"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not installed; RecBole needs recbole 1.2.1, torch and pandas 2"
    if not (pandas := importlib.metadata.version("pandas")).startswith("2."):
        return f"pandas is {pandas}; RecBole needs pandas 2"
    return None


ABSENT = _why_absent()
"""Why this peer cannot run; None if it can."""


def version() -> str | None:
    """The version of RecBole; None if it cannot run."""
    return None if ABSENT else importlib.metadata.version("recbole")


class Peer:
    """One of RecBole's models on the CPU.

    Args:
        backbone: fpmc or stamp.
        num_items: size of the catalogue.
        dim: width of the model.
        train: training sessions.
        test: sessions to evaluate on.
        batch_size: sessions in a training step.
        test_batch: sessions scored at a time.
    """

    def __init__(
        self,
        backbone: str,
        num_items: int,
        dim: int,
        train: alkd.Sessions,
        test: alkd.Sessions,
        *,
        batch_size: int = 1024,
        test_batch: int = 512,
    ) -> None:
        name, split = MODELS[backbone], {"train": train, "valid": test, "test": test}
        sizes = {"embedding_size": dim, "train_batch_size": batch_size, "eval_batch_size": test_batch}
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), _quiet():
            _write(pathlib.Path("sessions"), num_items, split)
            modules = {part: importlib.import_module(f"recbole.{part}") for part in ("config", "data", "utils")}
            config = modules["config"].Config(model=name, dataset="sessions", config_dict=_settings(train) | sizes)
            dataset = modules["data"].create_dataset(config)
            self.train, _, self.test = modules["data"].data_preparation(config, dataset)
            self.num_items, self.num_train = dataset.item_num - 1, len(train)
            self.model = modules["utils"].get_model(name)(config, self.train.dataset)
            self.trainer = modules["utils"].get_trainer(config["MODEL_TYPE"], name)(config, self.model)
            self.trainer.tensorboard.close()
        # Importing RecBole turns on PyTorch's anomaly detection for the whole process, which costs 50 % more time.
        importlib.import_module("torch").autograd.set_detect_anomaly(False)
        self.batches = self._endless()

    def train_sessions(self, num: int) -> float:
        """Trains until `num` sessions have been processed, epoch after epoch; returns the last loss."""
        num_done, loss = 0, None
        self.model.train()
        while num_done < num:
            batch = next(self.batches)
            num_done += len(batch)
            self.trainer.optimizer.zero_grad()
            loss = self.model.calculate_loss(batch)
            loss.backward()
            self.trainer.optimizer.step()
        return float(loss.detach()) if loss is not None else float("nan")

    def recall(self) -> float:
        """Recall@25 over all test sessions by RecBole's evaluation, which does not exclude the items of a session."""
        with _quiet():
            return float(self.trainer.evaluate(self.test, load_best_model=False)["recall@25"])

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.train


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses RecBole's warnings and defines the numpy names that it expects."""
    for old, new in (("float_", np.float64), ("complex_", np.complex128), ("unicode_", np.str_)):
        if old not in vars(np):
            setattr(np, old, new)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _settings(train: alkd.Sessions) -> dict[str, Any]:
    """Our settings where RecBole's defaults differ."""
    return {
        "data_path": ".",
        "checkpoint_dir": ".",
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": ["session_id", "item_id_list", "item_id"], "item": ["item_id"]},
        "USER_ID_FIELD": "session_id",
        "alias_of_item_id": ["item_id_list"],
        "MAX_ITEM_LIST_LENGTH": np.shape(train.items)[1],
        "loss_type": "BPR",
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "learning_rate": 1e-3,
        "eval_args": {"split": {"LS": "valid_and_test"}, "mode": "full", "order": "TO", "group_by": "user"},
        "metrics": ["Recall"],
        "topk": [25],
        "valid_metric": "Recall@25",
        "use_gpu": False,
        "show_progress": False,
    }


def _write(folder: pathlib.Path, num_items: int, split: dict[str, alkd.Sessions]) -> None:
    """Writes RecBole's files: all items, so that the catalogue is ours, and one numbered line per session."""
    folder.mkdir()
    names = "\n".join(str(item) for item in range(1, num_items + 1))
    (folder / "sessions.item").write_text(f"item_id:token\n{names}\n", encoding="utf-8")
    number = 0
    for part, sessions in split.items():
        lines = ["session_id:token\titem_id_list:token_seq\titem_id:token"]
        arrays = (np.asarray(array) for array in (sessions.items, sessions.mask, sessions.target))
        for items, mask, target in zip(*arrays, strict=True):
            lines.append(f"{number}\t{' '.join(map(str, items[mask]))}\t{target}")
            number += 1
        (folder / f"sessions.{part}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
