"""One error stands for a group: an interrupt before all others, and none of them is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.lowlevel
from hypothesis import given, strategies as st

from agentloop._runtime.exception_groups import single

_KINDS: tuple[Callable[[], BaseException], ...] = (
    lambda: ValueError("plain"),
    lambda: OSError("also plain"),
    KeyboardInterrupt,
    lambda: SystemExit(3),
)


def _grouped(leaves: list[BaseException], shape: list[int]) -> BaseException:
    """The errors in groups in groups, in their order."""
    error: BaseException = BaseExceptionGroup("", leaves)
    for size in shape:
        error = BaseExceptionGroup("", [error, *[_KINDS[0]() for _ in range(size)]])
    return error


@given(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=5), st.lists(st.integers(0, 2), max_size=3))
def test_an_interrupt_precedes_all_errors_of_the_same_time_and_each_of_them_is_noted(
    kinds: list[Callable[[], BaseException]], shape: list[int]
) -> None:
    leaves = [kind() for kind in kinds]
    error = single(_grouped(leaves, shape))

    interrupts = [leaf for leaf in leaves if not isinstance(leaf, Exception)]
    assert error is (interrupts or leaves)[0]
    assert len(getattr(error, "__notes__", [])) == len(leaves) + sum(shape) - 1


async def test_ctrl_c_gets_out_of_a_nursery_in_which_an_error_came_first() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:

            async def fail() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError("the cleanup fails")

            nursery.start_soon(fail)
            await trio.lowlevel.checkpoint()
            raise KeyboardInterrupt

    assert isinstance(single(caught.value), KeyboardInterrupt)
