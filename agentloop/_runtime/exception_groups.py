"""Exception groups are right for machines and wrong at the edge of an API: one error in, one error out."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import NoReturn, TypeAlias, cast

import trio

from agentloop._core.foreign_errors import describe

__all__ = ["failure_of", "is_cancellation", "raise_single", "single", "split_plain"]

Group: TypeAlias = "BaseExceptionGroup[BaseException]"


def is_cancellation(error: BaseException) -> bool:
    """Whether ``error`` is `trio.Cancelled`, or a group of nothing else."""
    return all(isinstance(leaf, trio.Cancelled) for leaf in _leaves(error))


def single(error: BaseException) -> BaseException:
    """The one error that stands for ``error``, which may be a group. Cancellations do not count.

    An interrupt concerns the whole program, so it precedes all others. The first of several plain errors is chosen, and
    the others become notes on it.
    """
    leaves = [leaf for leaf in _leaves(error) if not isinstance(leaf, trio.Cancelled)]
    if not leaves:
        return error
    chosen = next((leaf for leaf in leaves if not _is_plain(leaf)), leaves[0])
    for other in leaves:
        if other is not chosen:
            # The exception of a frozen class takes no notes.
            with suppress(Exception):
                chosen.add_note(f"At the same time: {describe(other)}")
    return chosen


def failure_of(error: BaseException) -> BaseException:
    """The failure of user code that raised ``error``, as one exception.

    `asyncio.CancelledError` counts as a failure: it comes from an asyncio loop of the user code's own, and no scope of
    trio's is cancelled.

    Raises:
      BaseException: the part of ``error`` that is no failure: a cancellation of trio's, or an interrupt.
    """
    leaves = _leaves(error)
    if all(map(_is_plain, leaves)):
        return single(error)
    if isinstance(error, BaseExceptionGroup) and any(map(_is_cancellation_of_asyncio, leaves)):
        # A nursery above would take it for an interrupt.
        _, rest = cast("Group", error).split(_is_cancellation_of_asyncio)
        assert rest is not None
        raise rest
    raise error


def _is_plain(error: BaseException) -> bool:
    return isinstance(error, Exception) or _is_cancellation_of_asyncio(error)


def _is_cancellation_of_asyncio(error: BaseException) -> bool:
    # Looked up, not imported: most programs on trio never load asyncio.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def split_plain(error: BaseException) -> tuple[Exception | None, BaseException | None]:
    """Split ``error`` into its plain failure, if any, and the cancellation or interrupt that must propagate."""
    if isinstance(error, Exception):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    plain, rest = cast("Group", error).split(Exception)
    return plain, rest if rest is None or is_cancellation(rest) else single(rest)


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in cast("Group", error).exceptions for leaf in _leaves(inner)]


def raise_single(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise `single` of a nursery's ``group`` in place of the group.

    An error of only one task stays as it is: a group from the caller's own nursery is theirs to take apart.
    """
    raised = [error for error in group.exceptions if not is_cancellation(error)]
    error = raised[0] if len(raised) == 1 else single(group)
    # Restored by hand, since `raise ... from None` would erase the real cause.
    context = error.__context__
    try:
        raise error
    finally:
        # Not by plain assignment, which a frozen class refuses.
        BaseException.__setattr__(error, "__context__", context)
        # Otherwise the traceback, this frame and the error would keep one another alive.
        del error, context, raised
