"""The methods by name: what counts the training sessions and returns a scorer.

A fit function is called as ``(counts, **options) -> scorer``; its keyword-only parameters are the method's options.
"""

import functools
import inspect
import typing
from collections.abc import Callable
from types import NoneType
from typing import Any

import numpy as np
from jaxtyping import Float

from alkd_jax.baselines.association_rules import association_rules, sequential_rules_by_distance
from alkd_jax.baselines.counts import Counts, count
from alkd_jax.baselines.knn import item_knn, session_knn
from alkd_jax.baselines.linear import ease, slis, slist, slit
from alkd_jax.baselines.neighbor_methods import sknn, stan, vsknn, vstan
from alkd_jax.baselines.popularity import popularity, recent_popularity, session_popularity
from alkd_jax.baselines.queries import Histories, Method, Scorer
from alkd_jax.baselines.rules import co_occurrence, markov, sequential_rules
from alkd_jax.registry import Registry
from alkd_jax.types import Sequences


def _of_counts(score: Callable[..., Float[np.ndarray, "B V1"]]) -> Callable[..., Scorer]:
    """Returns the fit function of a method that scores by counts, and whose options are those of its scores."""

    @functools.wraps(score)
    def fit_counts(counts: Counts, **options: Any) -> Scorer:
        scorer = functools.partial(score, counts, **options)
        scorer(Histories.from_rows([]))  # Refuses options, and makes the counts, before the first query.
        return scorer

    return fit_counts


METHODS = Registry[Callable[..., Scorer]](
    "method",
    {
        "popularity": _of_counts(popularity),
        "markov": _of_counts(markov),
        "co_occurrence": _of_counts(co_occurrence),
        "item_knn": _of_counts(item_knn),
        "session_knn": _of_counts(session_knn),
        "sequential_rules": _of_counts(sequential_rules),
        "recent_popularity": recent_popularity,
        "session_popularity": _of_counts(session_popularity),
        "ar": association_rules,
        "sr": sequential_rules_by_distance,
        "sknn": sknn,
        "vsknn": vsknn,
        "stan": stan,
        "vstan": vstan,
        "ease": ease,
        "slis": slis,
        "slit": slit,
        "slist": slist,
    },
    "a function of counts and options that returns a scorer",
    lambda name, found: found if callable(found) else None,
)
"""Name → fit function."""


def method(name: str, **options: Any) -> Method:
    """Returns the function of counts that fits a method with these options.

    Args:
        name: a key of :data:`METHODS`, or ``package.module:attribute``.
        **options: keyword-only parameters of the method's fit function.

    Raises:
        ValueError: there is no such method or option, or an option is of another type.
    """
    fit_function = METHODS.find(name)
    parameters = inspect.signature(fit_function).parameters.values()
    known = {parameter.name: parameter for parameter in parameters if parameter.kind == parameter.KEYWORD_ONLY}
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    for option, value in options.items():
        if option in known:
            _check_type(option, value, known[option].annotation)
        elif not takes_any:
            expected = " or ".join(known) if known else "no option"
            raise ValueError(f"option of the method {name} is {option!r}; expected {expected}")
    return functools.partial(fit_function, **options)


_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", NoneType: "None"}
"""Types that options can have, and what they are called."""


def _check_type(name: str, value: object, annotation: Any) -> None:
    """Refuses the value of an option that is not of one of the plain types by which it is annotated.

    Raises:
        ValueError: it is of another type.
    """
    kinds = typing.get_args(annotation) or (annotation,)
    if not all(kind in _TYPES for kind in kinds):
        return
    plain = value.item() if isinstance(value, np.generic) else value
    if type(plain) not in kinds:
        shown = " or ".join(_TYPES[kind] for kind in kinds if kind is not int or float not in kinds)
        raise ValueError(f"{name} is {value!r}; expected {shown}")


def fit(name: str, sequences: Sequences, num_items: int, **options: Any) -> Scorer:
    """Counts the training sessions and returns the scorer of a method.

    Args:
        name: a key of :data:`METHODS`, or ``package.module:attribute``.
        sequences: N training sessions at full length.
        num_items: V.
        **options: options of the method, see its fit function.

    Returns:
        Function of :class:`alkd_jax.baselines.Histories` that returns ``[B, V + 1]`` scores in float64.

    Raises:
        ValueError: there is no such method or option, an option is out of range, the method needs times and the
            sessions have none, or as in :func:`alkd_jax.baselines.count`.

    Example:
        >>> sequences = Sequences(np.array([1, 2, 3, 1, 2]), np.array([0, 3, 5]))
        >>> scorer = fit("markov", sequences, 3)
        >>> scorer(Histories.from_rows([[3, 1], [2]])).tolist()
        [[0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    """
    return method(name, **options)(count(sequences, num_items))
