"""What `experiments.verify` computes: data with their origin and terms, and the numbers that publications state."""

import dataclasses
from collections.abc import Mapping

from ..reporting.published import published_results
from .published_numbers import CountingMethod, Published, ReleasedStudent, TrainedRun


@dataclasses.dataclass(frozen=True)
class Entry:
    """Data for which publications state numbers, and these.

    Attributes:
        recipe: name of the recipe by which the data are made and evaluated; it has the published counts.
        reader: name of the reader of the files.
        files: names of the files, those of the reader first.
        origin: where the files come from.
        terms: their terms of use as far as the publishers state them.
        tolerance: largest difference from a published count, as a share of it; 0 for equal counts.
        metrics: published metrics of methods on these data.
        with_counts: whether the published counts of the recipe are compared, too.
    """

    recipe: str
    reader: str
    files: tuple[str, ...]
    origin: str
    terms: str
    tolerance: float = 0.0
    metrics: tuple[Published, ...] = ()
    with_counts: bool = True


_S3REC = (
    "the folder data of github.com/RUCAIBox/CIKM2020-S3Rec",
    "derived from Amazon reviews of 2014; no licence stated",
)
_RELEASE = ("the repository of ALKDRec's authors (Du et al., AAAI 2025)", "no licence stated")
_YOOCHOOSE = ("the RecSys Challenge 2015 (kaggle.com/datasets/chadgostopp/recsys-challenge-2015)", "CC BY-NC-ND 4.0")
_DIGINETICA = ("the CIKM Cup 2016, track 2 (personalized e-commerce search, by DIGINETICA)", "terms of the competition")
_RETAILROCKET = ("kaggle.com/datasets/retailrocket/ecommerce-dataset", "CC BY-NC-SA 4.0")

_ESASREC = "eSASRec, RecSys 2025 (arXiv 2508.06450), table of the datasets of S3-Rec"
_GRU4REC = "results in the README of github.com/hidasib/GRU4Rec_PyTorch_Official"
_INDEPENDENT = "an independent computation on the released files, in no publication; a half of a mean rank rounded down"
_NEIGHBORS = f"{_INDEPENDENT}; which of equally similar sessions are among the 100 is not stated, hence 1 %"


def _s3rec(name: str) -> Entry:
    return Entry("s3rec", "userseq", (f"{name}.txt",), *_S3REC)


_ESASREC_OPTIONS = {"loss": "sampled_softmax", "corrected": False, "item_dropout": 0.2}
"""What the runs of that publication have in common; they differ in width and number of negatives."""


def _esasrec(name: str, sasrec: tuple[float, float], esasrec: tuple[float, float], hstu: tuple[float, float]) -> Entry:
    rows = (("SASRec, sampled softmax", "sasrec", sasrec), ("eSASRec", "esasrec", esasrec), ("HSTU", "hstu", hstu))
    published = tuple(
        Published(
            title,
            {"recall@10": recall, "ndcg@10": ndcg},
            TrainedRun(backbone, "sampled softmax and dropout of items", _ESASREC_OPTIONS),
            _ESASREC,
            tolerance=0.05,
        )
        for title, backbone, (recall, ndcg) in rows
    )
    return dataclasses.replace(_s3rec(name), metrics=published, with_counts=False)


def _student(data: str, backbone: str) -> Published:
    """Returns Table 1's row of a student, whose NDCG follows the iteration order of a hash set."""
    row = published_results("table1")[data][backbone]["Student"]
    values = {name.replace("ndcg", "ndcg_released"): value for name, value in row.items()}
    source = "ALKDRec (Du et al., AAAI 2025), Table 1"
    return Published(f"{backbone} student", values, ReleasedStudent(f"{data}+{backbone}_S.pt"), source, digits=5)


def _counted(data: str, recalls: Mapping[str, float]) -> Entry:
    methods = {
        "popularity": CountingMethod("popularity", ties="published", history=10),
        "Markov": CountingMethod("markov", ties="published", history=10),
        "co-occurrence": CountingMethod("co_occurrence", ties="published", history=10),
        "item-kNN": CountingMethod("item_knn", ties="published", history=10),
        "item-kNN, recency 0.8": CountingMethod("item_knn", {"recency": 0.8}, ties="published", history=10),
        "session-kNN": CountingMethod("session_knn", ties="published", history=10),
    }
    rows = [Published(name, {"recall@10": recalls[name]}, method, _INDEPENDENT) for name, method in methods.items()]
    rows[-1] = dataclasses.replace(rows[-1], source=_NEIGHBORS, tolerance=0.01)
    return Entry("alkdrec", "released", (f"{data}.pkl", f"{data}_title.csv"), *_RELEASE, metrics=tuple(rows))


def _gru4rec(data: str, files: tuple[str, ...], source: tuple[str, str], recall: float, mrr: float) -> Entry:
    training = TrainedRun("gru4rec", "the official parameters of these data, trained on validation sessions too")
    row = Published("GRU4Rec", {"recall@20": recall, "mrr@20": mrr}, training, _GRU4REC, tolerance=0.02)
    return Entry(f"gru4rec-{data}", data, files, *source, metrics=(row,))


_POPULARITY = tuple(
    Published(
        title,
        {"recall@20": recall, "mrr@20": mrr},
        CountingMethod(name),
        "Hidasi et al., ICLR 2016, Table 1, RSC15",
        tolerance=0.02,
    )
    for title, name, recall, mrr in (
        ("popularity", "popularity", 0.0050, 0.0012),
        ("session popularity", "session_popularity", 0.2672, 0.1775),
    )
)

_CORE = Published(
    "CORE, transformer",
    {"recall@20": 0.5289, "mrr@20": 0.1858},
    TrainedRun("core", "transformer"),
    "Hou et al., CORE, SIGIR 2022, Diginetica",
    tolerance=0.02,
)

ENTRIES: Mapping[str, Entry] = {
    "s3rec-beauty": _s3rec("Beauty"),
    "s3rec-sports": _s3rec("Sports_and_Outdoors"),
    "s3rec-toys": _s3rec("Toys_and_Games"),
    "alkdrec-ml": Entry(
        "alkdrec",
        "released",
        ("ML.pkl", "ML_title.csv", "ML+FPMC_S.pt", "ML+STAMP_S.pt"),
        *_RELEASE,
        metrics=(_student("ML", "FPMC"), _student("ML", "STAMP")),
    ),
    "alkdrec-games": Entry(
        "alkdrec",
        "released",
        ("Games.pkl", "Games_title.csv", "Games+FPMC_S.pt"),
        *_RELEASE,
        metrics=(_student("Games", "FPMC"),),
    ),
    "counting-ml": _counted(
        "ML",
        {
            "popularity": 0.0110,
            "Markov": 0.0329,
            "co-occurrence": 0.0479,
            "item-kNN": 0.0381,
            "item-kNN, recency 0.8": 0.0414,
            "session-kNN": 0.0548,
        },
    ),
    "counting-games": _counted(
        "Games",
        {
            "popularity": 0.0027,
            "Markov": 0.0819,
            "co-occurrence": 0.0784,
            "item-kNN": 0.0684,
            "item-kNN, recency 0.8": 0.0729,
            "session-kNN": 0.0821,
        },
    ),
    "esasrec-beauty": _esasrec("Beauty", (0.0921, 0.0531), (0.0928, 0.0523), (0.0788, 0.0439)),
    "esasrec-sports": _esasrec("Sports_and_Outdoors", (0.0569, 0.0314), (0.0560, 0.0323), (0.0437, 0.0243)),
    "esasrec-toys": _esasrec("Toys_and_Games", (0.0970, 0.0580), (0.0939, 0.0538), (0.0778, 0.0450)),
    "session-rec-yoochoose": Entry(
        "session-rec", "yoochoose", ("yoochoose-clicks.dat",), *_YOOCHOOSE, metrics=_POPULARITY
    ),
    "gru4rec-yoochoose": _gru4rec(
        "yoochoose", ("yoochoose-clicks.dat", "yoochoose-test.dat"), _YOOCHOOSE, 0.6789, 0.3024
    ),
    "gru4rec-diginetica": _gru4rec("diginetica", ("train-item-views.csv",), _DIGINETICA, 0.4995, 0.1542),
    "gru4rec-retailrocket": _gru4rec("retailrocket", ("events.csv",), _RETAILROCKET, 0.5186, 0.2175),
    "core-diginetica": Entry(
        "core-diginetica", "diginetica", ("train-item-views.csv",), *_DIGINETICA, metrics=(_CORE,)
    ),
}
"""Name → published numbers that can be computed here; a method more is one :class:`Published` more."""
