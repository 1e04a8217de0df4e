"""Exception groups are right for machines and wrong at the edge of an API: one error in, one error out."""

from __future__ import annotations

from typing import NoReturn, TypeAlias, cast

import trio

__all__ = ["is_cancellation", "raise_single", "single", "split_plain"]

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
    chosen = next((leaf for leaf in leaves if not isinstance(leaf, Exception)), leaves[0])
    for other in leaves:
        if other is not chosen:
            chosen.add_note(f"At the same time: {type(other).__name__}: {other}")
    return chosen


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
        error.__context__ = context
        # Otherwise the traceback, this frame and the error would keep one another alive.
        del error, context, raised
