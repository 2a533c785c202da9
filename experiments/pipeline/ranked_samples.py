"""The ranks of a finished run's trained models on its test sessions and on its validation sessions."""

from collections.abc import Mapping, Sequence

import numpy as np

from alkd_jax.evaluation.significance import per_session
from alkd_jax.io import open_arrays

from .console import print_line
from .methods import role_of, trained_methods
from .protocols import clusters, load_queries, rank_by_protocol
from .stage_records import checked_output
from .stages import Run


def stored_test_ranks(run: Run) -> tuple[Mapping[str, np.ndarray], np.ndarray | None]:
    """Returns method → stored ranks ``[S, P]`` of the test targets, and the session of each where one has several.

    Args:
        run: a finished run.
    """
    with open_arrays(checked_output(run.folder.path, "ranks.npz")) as archive:
        ranks = dict(archive)
    return ranks, clusters(run.settings.protocol, load_queries(run.folder.path)["session_id"])


def over_seeds(ranks: np.ndarray, metric: str) -> dict[str, float]:
    """Returns the "mean" and the "sd" over seeds of a metric.

    Args:
        ranks: ``[S, P]`` of two seeds or more.
        metric: recall@K, ndcg@K, mrr@K or mrr.
    """
    means = per_session(ranks, metric).mean(-1)
    return {"mean": float(means.mean()), "sd": float(means.std(ddof=1))}


def validation_ranks(run: Run, methods: Sequence[str]) -> tuple[Mapping[str, np.ndarray], np.ndarray | None]:
    """Ranks the validation targets with the trained models of every seed.

    Args:
        run: a finished run.
        methods: trained methods of the run, "Student" and "Teacher" among them or not.

    Returns:
        Method → ranks ``[S, P]``, and the session of each target where a session has several.
    """
    protocol, ranks = run.settings.protocol, {}
    session_id = None
    for method in methods:
        print_line(f"ranking the validation sessions: {method}")
        model, params = run.model(role_of(method)), run.params(trained_methods(run.settings.method_names)[method])
        per_seed = rank_by_protocol(model, params, run.dataset, protocol, "validation", mesh=run.mesh)
        ranks[method] = np.stack([np.asarray(result.ranks) for result in per_seed])
        session_id = clusters(protocol, np.asarray(per_seed[0].session_id))
    return ranks, session_id
