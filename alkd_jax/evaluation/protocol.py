"""Evaluation protocols: which items are predicted, which items they are ranked among, and how ties count."""

import dataclasses

from alkd_jax.checks import check_one_of
from alkd_jax.evaluation.queries import TARGETS

SEEN = {"exclude": "seen items excluded", "keep": "seen items ranked"}
"""What happens to the known items of a session, the target excepted."""

TIE_RULES = {"average": "mean rank of ties", "optimistic": "best rank of ties", "pessimistic": "worst rank of ties"}
"""The rank among items whose score equals the target's."""

RULES = ("clean", "released")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Everything but the data and the model that decides about ranks.

    Attributes:
        seen: "exclude" ranks the target among the items that are not known from its session, "keep" among all items.
        targets: "last", "first" or "all", see :data:`alkd_jax.evaluation.queries.TARGETS`.
        ties: "average", "optimistic" or "pessimistic", see :func:`alkd_jax.scoring.target_rank`.
        rules: "clean", or "released" for the rules of the authors' code, which fix ``seen`` and ``targets``.

    Raises:
        ValueError: an option is unknown, or the released rules are combined with other targets or seen items.

    Example:
        >>> Protocol(targets="all", seen="keep").name
        'all targets, seen items ranked, mean rank of ties'
    """

    seen: str = "exclude"
    targets: str = "last"
    ties: str = "average"
    rules: str = "clean"

    def __post_init__(self) -> None:
        check_one_of("seen", self.seen, tuple(SEEN))
        check_one_of("targets", self.targets, tuple(TARGETS))
        check_one_of("ties", self.ties, tuple(TIE_RULES))
        check_one_of("protocol", self.rules, RULES)
        if self.rules == "released" and (self.seen, self.targets) != ("exclude", "last"):
            raise ValueError(
                f"protocol is 'released' with seen={self.seen!r} and targets={self.targets!r}; expected "
                "seen='exclude' and targets='last', as in the released code"
            )

    @property
    def name(self) -> str:
        """One line for captions and stored results."""
        parts = [f"{self.targets} target{'s' * (self.targets == 'all')}", SEEN[self.seen], TIE_RULES[self.ties]]
        return ", ".join(parts + ["rules of the released code"] * (self.rules == "released"))
