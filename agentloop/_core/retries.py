"""Decide what to do after a model has failed: retry, ask the next model, or give up. The loop waits; this decides."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from zlib import crc32

import msgspec

from agentloop.errors import (
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextOverflowError,
    ModelError,
    ModelOutputLimitError,
    ModelProtocolError,
    ModelQuotaError,
    ModelRateLimitError,
    ModelRefusalError,
    ModelResponseError,
    ModelStatusError,
    ModelTimeoutError,
    OutputError,
)
from agentloop.limits import Retries
from agentloop.models import Model

__all__ = ["REMEDIES", "Chain", "Cooldowns", "Next", "Remedy", "remedy"]


class Remedy(msgspec.Struct, frozen=True):
    """The remedy for an error."""

    same: bool
    """To ask the same model again, after a while."""
    other: bool
    """To ask another model."""
    other_first: bool = False
    """Whether another model, if there is one, comes before another try."""


TRANSIENT = frozenset({408, 409, 424, 425, 499, 500, 502, 503, 504, *range(520, 528), 529, 530, 598, 599})
"""HTTP statuses that pass: timeouts, conflicts, overload, and failures behind the server. Bedrock's model failed (424),
nginx and others gave up on it (499, 598, 599), Cloudflare did not reach the server (52x, 530), Anthropic is busy
(529)."""

_AGAIN = Remedy(same=True, other=True)
_ELSEWHERE = Remedy(same=False, other=True)
_FINAL = Remedy(same=False, other=False)

REMEDIES: tuple[tuple[type[Exception], Remedy], ...] = (
    # The model gave an answer, if not a welcome one.
    (ModelRefusalError, _FINAL),
    (OutputError, _FINAL),
    # A key, a purse and a context window do not get better by waiting; another model has its own.
    (ModelAuthenticationError, _ELSEWHERE),
    (ModelQuotaError, _ELSEWHERE),
    (ModelContextOverflowError, _ELSEWHERE),
    (ModelRateLimitError, Remedy(same=True, other=True, other_first=True)),
    # The same request would most likely get as long a response.
    (ModelOutputLimitError, _ELSEWHERE),
    # The response failed, not the request: the model mostly gets it right when it is asked once more.
    (ModelResponseError, _AGAIN),
    # Of the other statuses, those in `TRANSIENT` pass; the rest are about the request, for this server.
    (ModelStatusError, _ELSEWHERE),
    (ModelConnectionError, _AGAIN),
    (ModelTimeoutError, _AGAIN),
    (ModelProtocolError, _AGAIN),
    # An exception that an adapter did not translate is most often its own bug.
    (ModelError, _ELSEWHERE),
    # A rule that the caller broke: a script at its end, say.
    (Exception, _FINAL),
)
"""The first line that an error is of is the one that counts."""


def remedy(error: Exception) -> Remedy:
    """The remedy for ``error``."""
    if type(error) is ModelStatusError and error.status in TRANSIENT:
        return _AGAIN
    return next(found for kind, found in REMEDIES if isinstance(error, kind))


_OF_THE_MODEL = (ModelAuthenticationError, ModelQuotaError)
"""Besides the errors that pass, those that every run would get from the same model."""


class Next(msgspec.Struct, frozen=True):
    """The next request: to which model, and after how many seconds."""

    model: int
    delay: float


class _Same(msgspec.Struct, frozen=True):
    """A model without an identity of its own, as a key. The key holds the model, so that no other can get its id."""

    model: Model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


class Cooldowns:
    """The models that failed a short while ago, and are left alone until their cooldowns end. Runs share them.

    A cooldown belongs to a model: to its object, or to its name, address and key, if it has an ``identity``. A server
    that is busy for one prompt is busy for the next.
    """

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[Hashable, float] = {}
        """The end of each cooldown; those that are over go when the next one begins."""

    def end(self, model: Model) -> float:
        """The time at which the cooldown of ``model`` ends; minus infinity if it has none."""
        return self._ends.get(_key(model), -math.inf)

    def begin(self, model: Model, end: float, now: float) -> None:
        """Leave ``model`` alone from ``now`` to ``end``."""
        # A list, since runs in other threads add to it.
        for key, other_end in list(self._ends.items()):
            if other_end <= now:
                self._ends.pop(key, None)
        key = _key(model)
        self._ends[key] = max(end, self._ends.get(key, -math.inf))


def _key(model: Model) -> Hashable:
    identity: object = getattr(model, "identity", None)
    if identity is None:
        return _Same(model)
    try:
        hash(identity)
    except TypeError:
        return _Same(model)
    return (model.name, identity)


_NO_ENDS: Mapping[int, float] = {}


class Chain:
    """The models of an agent, in the order in which they are asked, and which of them are left alone for now.

    Args:
      models: the models, before they were opened.
      cooldowns: the models that failed by faults of their own. Shared with other runs, so all of their times, and those
        that the methods of the chain get, are on one clock.
      seed: some text, different for each stream, from which the jitter of its delays is made. Without any, clients that
        failed together would come back together.
    """

    __slots__ = ("_cooldowns", "_models", "_own_ends", "_retries", "_seed")

    def __init__(self, models: Sequence[Model], retries: Retries, *, cooldowns: Cooldowns, seed: str) -> None:
        self._models = models
        self._retries = retries
        self._cooldowns = cooldowns
        self._own_ends: Mapping[int, float] = _NO_ENDS
        """The end of the cooldown of each model that this run's requests do not suit."""
        self._seed = seed

    def first(self, now: float) -> int:
        """The model to ask for a new response: the first that is not left alone, or else the first of all."""
        if len(self._models) == 1:
            return 0
        return next((at for at in range(len(self._models)) if self._end(at) <= now), 0)

    def _end(self, model: int) -> float:
        return max(self._cooldowns.end(self._models[model]), self._own_ends.get(model, -math.inf))

    def after_failure(self, model: int, error: Exception, now: float, attempts: dict[int, int]) -> Next | None:
        """The next step after ``model`` failed with ``error``; ``None`` to give up.

        Args:
          attempts: the failed requests for the response at hand, by model. This failure is added to them.
        """
        found = remedy(error)
        asked = attempts[model] = attempts.get(model, 0) + 1
        other = next((at for at in range(len(self._models)) if at not in attempts), None) if found.other else None
        delay = self._delay(asked, error)
        again = found.same and asked < self._retries.attempts and delay is not None
        if other is not None and (found.other_first or not again):
            self._cool(model, error, now)
            return Next(other, 0.0)
        return Next(model, delay) if again and delay is not None else None

    def _cool(self, model: int, error: Exception, now: float) -> None:
        """Leave ``model`` alone: the responses after this one begin with the model that took over."""
        asked_for = error.retry_after if isinstance(error, ModelStatusError) else None
        end = now + max(self._retries.cooldown, asked_for or 0.0)
        if remedy(error).same or isinstance(error, _OF_THE_MODEL):
            self._cooldowns.begin(self._models[model], end, now)
        else:
            # Another run's requests may suit it.
            self._own_ends = {**self._own_ends, model: end}

    def _delay(self, asked: int, error: Exception) -> float | None:
        """Seconds before the next request to the same model; ``None`` if the server wants more than may be waited.

        Doubled each time, and between three quarters of that and all of it.
        """
        retries = self._retries
        asked_for = error.retry_after if isinstance(error, ModelStatusError) else None
        if asked_for is not None and asked_for > retries.max_wait:
            return None
        backoff = min(retries.delay * 2.0 ** (asked - 1), retries.max_delay)
        jitter = crc32(f"{self._seed}#{asked}".encode()) / 2**32
        return max(backoff * (1 - jitter / 4), asked_for or 0.0)
