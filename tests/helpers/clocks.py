"""A clock that only sleeping moves, and a pacer on it."""

from alkd_jax.llm.rate_limits import Limits, Pacer


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    async def sleep(self, seconds):
        self.now += seconds


def pacer(clock, **options):
    return Pacer(Limits(**options), clock=clock, sleep=clock.sleep, uniform=lambda: 0.5)
