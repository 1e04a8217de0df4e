"""Call the output validators of an agent, one after another, each with the deadline of a hook."""

from __future__ import annotations

import logging
from typing import Any

import trio

from agentloop._core.structured_output import takes_info, validator_name
from agentloop._runtime.logs import RUN, log
from agentloop._runtime.run import Run
from agentloop._runtime.user_code import UserCodeError, call_user_code, in_thread_if_plain
from agentloop.errors import Retry, UsageError
from agentloop.messages import AssistantMessage
from agentloop.run_info import OutputInfo

__all__ = ["validated"]


async def validated(run: Run, message: AssistantMessage, output: Any, *, attempt: int) -> Any:
    """The output of ``message``, as the output validators return it.

    Args:
      run: the run that has the output.
      message: the response that it was read from.
      output: the output, of the agent's ``output_type``.
      attempt: number of the attempt, from 1.

    Raises:
      Retry: a validator has the model try again.
      UsageError: a validator failed, took too long, or returned nothing.
    """
    info = OutputInfo[Any](
        source=run.source,
        deps=run.root.deps,
        turn=run.state.turn,
        model=run.models[0].name,
        usage=run.state.usage,
        attempt=attempt,
        attempts=run.meter.limits.output_attempts,
        message=message,
    )
    for validator in run.config.output_validators:
        name, stream = validator_name(validator), run.source.stream
        seconds = run.config.deadlines.hook
        arguments = (output, info) if takes_info(validator) else (output,)
        try:
            returned = await call_user_code(trio.move_on_after(seconds), in_thread_if_plain(validator), *arguments)
        except UserCodeError as failure:
            cause = failure.__cause__
            if isinstance(cause, Retry):
                log(RUN, logging.DEBUG, "stream %r: output validator %r has the model try again", stream, name)
                raise cause from cause.__cause__
            log(RUN, logging.ERROR, "stream %r: output validator %r failed", stream, name, error=cause)
            problem = f"took longer than {seconds:g} s" if failure.timed_out else str(failure)
            raise UsageError(
                f"the output validator {name!r} of agent {run.config.name!r} failed: {problem}; to have the model try "
                "again, it raises Retry"
            ) from cause
        if returned is None and output is not None:
            raise UsageError(
                f"the output validator {name!r} of agent {run.config.name!r} returned None: it is to return the output"
            )
        output = returned
    return output
