"""What an audit finds worth a warning."""

import numpy as np
import pytest

from alkd_jax.data.audit import audit
from alkd_jax.data.sessions import pack
from experiments.reporting.audit_findings import _order

RISING, FALLING = [1, 2], [2, 1]
TIED = "consecutive items with equal times and rising item id"


@pytest.mark.parametrize(
    ("num_rising", "num_falling", "severity"),
    [(7, 5, "ok"), (12, 0, "warning"), (290, 210, "warning"), (260, 240, "ok")],
)
def test_an_order_by_item_id_is_told_where_it_is_no_chance(num_rising, num_falling, severity):
    num = num_rising + num_falling
    result = audit(
        pack([RISING] * num_rising + [FALLING] * num_falling),
        (num - 2, 1, 1),
        ["", "a", "b"],
        ["", "1", "2"],
        time=np.zeros(2 * num, np.int64),
    )
    (tied,) = [finding for finding in _order(result) if finding.name == TIED]
    assert (tied.value, tied.severity) == (f"{100 * num_rising / num:.1f}%", severity)
