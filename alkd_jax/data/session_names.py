"""Raw ids of sessions: those of the source, or user and time where sessions are made here."""

import collections
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32, Int64

from alkd_jax.data.interactions import Interactions
from alkd_jax.data.session_rules import SessionRules
from alkd_jax.data.times import local_day


def name_sessions(
    log: Interactions,
    rules: SessionRules,
    user: Int32[np.ndarray, " N"],
    start: Int64[np.ndarray, " N"],
    session: Int32[np.ndarray, " N"] | None,
) -> tuple[str, ...]:
    """Returns the raw ids of sessions, by which a file from outside names them.

    A session of the source has its id there, or its user and id where two users have sessions of one id. A session that
    is all of a user has the user's id. A session of a day is ``USER 2020-09-13``, one that ends after a gap is
    ``USER 2020-09-13T12:26:40.000``, by its first time in UTC.

    Args:
        log: the interactions that the sessions were made from.
        rules: how they were made.
        user: ``[N]`` position in ``log.user_ids``.
        start: ``[N]`` time of the first interaction, milliseconds since 1970 in UTC.
        session: ``[N]`` position in ``log.session_ids``; None where the source has no sessions.

    Returns:
        N distinct texts.
    """
    users = [log.user_ids[code] for code in user.tolist()]
    if rules.boundary == "given" and session is not None and log.session_ids is not None:
        names = [log.session_ids[code] for code in session.tolist()]
        if len(set(names)) < len(names):
            names = [f"{who} {name}" for who, name in zip(users, names, strict=True)]
    elif rules.boundary == "user":
        names = users
    elif rules.boundary == "gap":
        times = np.datetime_as_string(start.astype("datetime64[ms]"), unit="ms").tolist()
        names = [f"{who} {time}" for who, time in zip(users, times, strict=True)]
    else:
        days = np.datetime_as_string(local_day(start, rules.time_zone).astype("datetime64[D]")).tolist()
        names = [f"{who} {day}" for who, day in zip(users, days, strict=True)]
    return tuple(_distinct(names))


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """Yields the names; the second of the same gets the suffix " #2", and so on."""
    counts: collections.Counter[str] = collections.Counter()
    taken = set(names)
    for name in names:
        counts[name] += 1
        distinct = name
        while counts[name] > 1 and distinct in taken:
            distinct = f"{name} #{counts[name]}"
            counts[name] += distinct in taken
        taken.add(distinct)
        yield distinct
