"""The rules by which interactions become sessions."""

import dataclasses
import math
from typing import Any

import numpy as np

from alkd_jax.checks import check_count, check_one_of, check_share
from alkd_jax.data.times import local_day

BOUNDARIES = ("day", "gap", "given", "user")
TIES = ("file", "id", "hash", "random")
USERS = ("file", "id")
DUPLICATES = ("first", "last", "adjacent", "keep")


@dataclasses.dataclass(frozen=True)
class SessionRules:
    """How sessions are made; the defaults are the recipe that reproduces the authors' released data.

    Attributes:
        boundary: "day" makes one session per user and calendar day, "gap" begins a new one after inactivity, "given"
            takes the sessions of the file, "user" makes one sequence of all interactions of a user.
        time_zone: IANA time zone of the calendar day.
        gap_minutes: minutes of inactivity that end a session.
        min_length: smallest number of interactions in a session, the target included.
        max_length: largest number of interactions in a session; longer sessions are dropped, not truncated. None for
            no limit.
        duplicates: which occurrences of an item stay in a session: "first", "last", all but immediate repeats
            ("adjacent"), or all ("keep").
        count_duplicates: whether lengths are measured before duplicates are dropped. They are in the released data,
            which for that reason has shorter sessions too.
        ties: order of a user's interactions at equal times: "file" as in the file, "id" by item id (numerically if all
            ids are numbers), "hash" by a hash of user, item and time, or "random".
        users: order of the users: "file" by first appearance, "id" by their ids.
        seed: random seed of the order of ties.
        events: kinds of events that stay in sessions, such as ``("view",)``; empty for all. Events of all kinds
            determine where a session ends.
        resolution: milliseconds to whose multiples times are rounded down before they are compared; 1000 for seconds.
        min_item_count: smallest number of interactions of an item in all sessions; rarer items are dropped from
            sessions of an allowed length, and then sessions that are left with fewer than ``min_length``.
        repeat_filter: whether rare items and short sessions are dropped again until nothing changes.
        recent: share of the sessions that stay, the most recent by their start, in (0, 1].
    """

    boundary: str = "day"
    time_zone: str = "UTC"
    gap_minutes: float | int = 30.0
    min_length: int = 5
    max_length: int | None = 19
    duplicates: str = "first"
    count_duplicates: bool = True
    ties: str = "file"
    users: str = "file"
    seed: int = 0
    events: tuple[str, ...] = ()
    resolution: int = 1
    min_item_count: int = 1
    repeat_filter: bool = False
    recent: float | int = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError if an option is not valid."""
        for name, known in (
            ("boundary", BOUNDARIES),
            ("ties", TIES),
            ("duplicates", DUPLICATES),
            ("users", USERS),
        ):
            check_one_of(name, getattr(self, name), known)
        if not 1 <= self.min_length <= (self.min_length if self.max_length is None else self.max_length):
            raise ValueError(f"min_length, max_length are {self.min_length}, {self.max_length}; expected 1 ≤ min ≤ max")
        if not 0 < self.gap_minutes < math.inf:
            raise ValueError(f"gap_minutes is {self.gap_minutes}; expected a finite number above 0")
        check_count(1, resolution=self.resolution, min_item_count=self.min_item_count)
        check_share("recent", self.recent)
        local_day(np.zeros(1, np.int64), self.time_zone)

    @property
    def options(self) -> dict[str, Any]:
        """The rules as plain JSON values."""
        return {**dataclasses.asdict(self), "events": list(self.events)}
