"""How each backbone is trained by default: the settings of its publication, the only place where they stand.

Where a publication leaves a setting open, or its text and its files differ, the note says what was chosen and why.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from alkd_jax.models import BACKBONES


@dataclasses.dataclass(frozen=True)
class BackboneDefaults:
    """Settings of one backbone.

    Attributes:
        dim: width D.
        loss: name of the loss, see :mod:`experiments.pipeline.loss_names`.
        targets: what training predicts, see :func:`alkd_jax.training.fit`; or "parallel", which reads sessions in
            parallel, see :func:`alkd_jax.training.parallel_sessions`.
        options: options of the backbone.
        num_negatives: C, number of sampled negatives.
        negatives: what has negatives of its own: every position, every session, or the batch.
        loss_options: further options of the loss of "parallel", see :mod:`experiments.pipeline.loss_names`.
        batch_size: examples of a step.
        learning_rate: of Adam; for "parallel", of Adagrad.
        second_decay: Adam's β₂.
        momentum: of Adagrad.
        max_epochs: the largest number of epochs.
        patience: epochs without a higher validation recall after which training stops.
        max_length: L, number of most recent items that the backbone reads.
        note: what deviates from the publication.
        reference: the publication.
    """

    dim: int
    loss: str
    targets: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_negatives: int = 256
    negatives: str = "position"
    loss_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int = 128
    learning_rate: float = 1e-3
    second_decay: float = 0.999
    momentum: float = 0.0
    max_epochs: int = 200
    patience: int = 10
    max_length: int = 50
    note: str = ""
    reference: str = ""


_ALKDREC = BackboneDefaults(
    dim=100,
    loss="in_batch_bpr",
    targets="last",
    batch_size=1024,
    max_length=10,
    patience=20,
    max_epochs=1000,
    reference="Du et al., ALKDRec, AAAI 2025, released settings of the teacher",
)

_WIDTH = "width 128 is level on Beauty's validation with the 256 of the runnable configuration; the text says 64"

DEFAULTS: Mapping[str, BackboneDefaults] = {
    "fpmc": _ALKDREC,
    "stamp": _ALKDREC,
    "attmix": _ALKDREC,
    "late": dataclasses.replace(_ALKDREC, dim=16, loss="softmax", targets="all", reference="this library"),
    "gru4rec": BackboneDefaults(
        dim=100,
        loss="sampled_softmax",
        targets="parallel",
        options={"embedding_dropout": 0.1},
        num_negatives=2048,
        negatives="batch",
        loss_options={"exponent": 0.75, "logq": 1.0, "repeats": True},
        batch_size=32,
        learning_rate=0.1,
        max_epochs=10,
        note="the authors' parameters of RSC15, of whose 10 epochs that with the best validation recall is kept",
        reference="Hidasi and Karatzoglou, GRU4Rec, CIKM 2018; the authors' parameters of 2023",
    ),
    "narm": BackboneDefaults(
        dim=50, loss="softmax", targets="all", batch_size=512, reference="Li et al., NARM, CIKM 2017"
    ),
    "srgnn": BackboneDefaults(
        dim=100,
        loss="softmax",
        targets="all",
        batch_size=100,
        note="without the decay of the learning rate and of the weights",
        reference="Wu et al., SR-GNN, AAAI 2019",
    ),
    "core": BackboneDefaults(
        dim=100, loss="softmax", targets="all", batch_size=512, reference="Hou et al., CORE, SIGIR 2022"
    ),
    "sasrec": BackboneDefaults(
        dim=128,
        loss="sampled_softmax",
        targets="positions",
        options={"blocks": 1, "heads": 1, "dropout": 0.2, "item_dropout": 0.2},
        second_decay=0.98,
        note="the sampled softmax, Adam and dropout of items of its later evaluations in place of the paper's BCE with "
        f"one negative; {_WIDTH}",
        reference="Kang and McAuley, ICDM 2018; Klenitskiy and Vasilev, RecSys 2023; Tikhonovich et al., RecSys 2025",
    ),
    "gsasrec": BackboneDefaults(
        dim=128,
        loss="gbce",
        targets="positions",
        options={"blocks": 2, "heads": 1, "dropout": 0.5},
        note="50 positions instead of 200",
        reference="Petrov and Macdonald, gSASRec, RecSys 2023",
    ),
    "esasrec": BackboneDefaults(
        dim=128,
        loss="sampled_softmax",
        targets="positions",
        options={"blocks": 1, "heads": 1, "dropout": 0.2, "item_dropout": 0.2, "multiplier": 4},
        second_decay=0.98,
        note=f"dropout of items as in the runnable configuration; {_WIDTH}",
        reference="Tikhonovich et al., eSASRec, RecSys 2025",
    ),
    "hstu": BackboneDefaults(
        dim=50,
        loss="sampled_softmax",
        targets="positions",
        options={"blocks": 2, "heads": 1, "dropout": 0.2, "item_dropout": 0.2},
        num_negatives=128,
        second_decay=0.98,
        max_epochs=101,
        note="without times, which not all data have; the option time reads them; dropout of items as in the "
        "evaluation of Tikhonovich et al.",
        reference="Zhai et al., HSTU, ICML 2024",
    ),
}
"""Name of a backbone → its settings."""

_WHOLE_SESSIONS: Mapping[str, BackboneDefaults] = {
    "gru4rec": BackboneDefaults(
        dim=100,
        loss="sampled_softmax",
        targets="positions",
        num_negatives=2048,
        negatives="batch",
        note="whole sessions with backpropagation through time and Adam, in place of parallel sessions and Adagrad",
        reference="Hidasi and Karatzoglou, GRU4Rec, CIKM 2018",
    )
}
"""Name of a backbone whose publication reads sessions in parallel → its settings where whole sessions are read."""

_OWN = dataclasses.replace(_ALKDREC, reference="defaults of a backbone of one's own")


def defaults_of(backbone: str, *, parallel: bool = True) -> BackboneDefaults:
    """Returns the settings of a backbone; those of the paper's backbones for one of a user's own.

    Args:
        backbone: its name.
        parallel: whether training may read sessions in parallel.
    """
    found = DEFAULTS.get(backbone, _OWN)
    return found if parallel else _WHOLE_SESSIONS.get(backbone, found)


def has_max_length(backbone: str) -> bool:
    """Whether a backbone has positions, whose number is an option."""
    fields = dataclasses.fields(BACKBONES.find(backbone))
    return any(field.name == "max_length" for field in fields)
