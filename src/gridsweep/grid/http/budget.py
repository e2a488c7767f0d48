"""Request budget and circuit breaker of a provider, as values that take the time as an argument.

Times are seconds of any monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HOUR = 3600.0
CAPACITY, REFILL = 4, 8
"""Maximum of tokens, and tokens added per hour. 4 + 8 = 12: no hour has more requests."""
FAILURES, FIRST_REST, LONGEST_REST = 5, 30.0, HOUR
_ROUNDING = 1e-9


@dataclass(slots=True)
class TokenBucket:
    """A token bucket, full at first, with `refill` new tokens an hour; no hour takes more than `capacity + refill`."""

    capacity: int = CAPACITY
    refill: float = REFILL
    _tokens: float = field(init=False)
    _at: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.refill <= 0:
            raise ValueError(f"a bucket of {self.capacity} tokens, {self.refill} an hour, lets nothing through")
        self._tokens = float(self.capacity)

    def take(self, now: float) -> bool:
        """Take a token; return False if none is available."""
        if self.wait(now) > 0:
            return False
        self._tokens -= 1
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until a token is available."""
        if self._at is not None and now > self._at:
            self._tokens = min(float(self.capacity), self._tokens + (now - self._at) * self.refill / HOUR)
        self._at = now if self._at is None else max(self._at, now)
        missing = 1 - self._tokens
        return missing * HOUR / self.refill if missing > _ROUNDING else 0.0


@dataclass(slots=True)
class CircuitBreaker:
    """A circuit breaker that opens after `failures` consecutive failures: `rest` seconds pause, then one probe.

    If the probe fails too, the pause doubles, up to `longest` seconds; any answer closes the breaker.
    """

    failures: int = FAILURES
    rest: float = FIRST_REST
    longest: float = LONGEST_REST
    _failed: int = field(default=0, init=False)
    _resting: float = field(default=0.0, init=False)
    _until: float = field(default=0.0, init=False)

    def wait(self, now: float) -> float:
        """Return the seconds until the next try; 0 while the breaker is closed, or half open for a probe."""
        return max(0.0, self._until - now) if self._failed >= self.failures else 0.0

    def answered(self) -> None:
        """Record an answer, which closes the breaker."""
        self._failed, self._resting = 0, 0.0

    def failed(self, now: float) -> None:
        """Record a failed try at `now`."""
        self._failed += 1
        if self._failed >= self.failures:
            self._resting = min(self.longest, 2 * self._resting or self.rest)
            self._until = now + self._resting
