"""Whether training events are later than test targets, as where a split mixes the past and the future."""

import numpy as np
from jaxtyping import Int64

from alkd_jax.data.splits import EVENT_SPLITS
from alkd_jax.data.times import format_time


def leak_warning(
    rule: str,
    train_time: Int64[np.ndarray, " T"] | None,
    target_time: Int64[np.ndarray, " P"] | None,
) -> str:
    """Describes how much of training is later than the first test target.

    Args:
        rule: a key of :data:`alkd_jax.data.splits.SPLITS`.
        train_time: ``[T]`` times of the events in training sessions, milliseconds since 1970; None if unknown.
        target_time: ``[P]`` times of the test targets; None if unknown.

    Returns:
        One sentence, empty where no training event is later than any test target.
    """
    if train_time is None or target_time is None:
        return (
            f"split {rule}: the source has no times, so it is unknown whether training events are later than test "
            "targets" + (", as they usually are when each user's last item is left out" if rule in EVENT_SPLITS else "")
        )
    first_target = int(target_time.min())
    num_late = int(np.sum(train_time > first_target))
    if not num_late:
        return ""
    return (
        f"split {rule}: training sees the future of test: {num_late:,} of {len(train_time):,} training events "
        f"({num_late / len(train_time):.1%}) are later than the first test target, of {format_time(first_target)}; "
        "expected none in an estimate of future use, as with split time-events"
    )
