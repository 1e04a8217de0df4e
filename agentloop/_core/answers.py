"""Which answer fits which question."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from agentloop._core.forms import fill
from agentloop._core.permissions import Call, covers
from agentloop.errors import ArgumentsError, InvalidAnswerError
from agentloop.events import ApprovalRequested, ContinueRequested, ElicitationRequested
from agentloop.permissions import Glob, Rule
from agentloop.questions import Accept, Answer, Approve, Cancel, Decline, Deny

__all__ = ["check_always", "check_approval", "check_continue", "check_elicitation"]


def check_elicitation(question: ElicitationRequested, answer: Answer) -> Answer:
    """The answer as the tool gets it, with the form's defaults filled in.

    Raises:
      InvalidAnswerError: not an `Accept`, `Decline` or `Cancel`, or its content does not fit the form.
    """
    if isinstance(answer, (Decline, Cancel)):
        return answer
    if not isinstance(answer, Accept):
        raise _wrong_kind(question.id, answer, "Accept, Decline or Cancel")
    try:
        return Accept(fill(question.form, _checked(answer.content)))
    except ValueError as error:
        raise InvalidAnswerError(question=question.id, problem=str(error)) from error


def check_approval(
    question: ApprovalRequested, convert: Callable[[Mapping[str, Any]], object], answer: Answer
) -> Answer:
    """The answer, as it is.

    Args:
      convert: raises `ArgumentsError` for arguments that do not fit the tool.

    Raises:
      InvalidAnswerError: not an `Approve` or `Deny`, or its arguments do not fit the tool.
    """
    if isinstance(answer, Approve) and answer.arguments is not None:
        try:
            convert(_checked(answer.arguments))
        except (ArgumentsError, ValueError) as error:
            raise InvalidAnswerError(question=question.id, problem=str(error)) from error
    elif not isinstance(answer, (Approve, Deny)):
        raise _wrong_kind(question.id, answer, "Approve or Deny")
    return answer


def check_always(question: ApprovalRequested, always: object, call: Call) -> None:
    """Check that what is allowed for good is no more than one who approves ``call`` can mean.

    Raises:
      InvalidAnswerError: not a bool, nor a rule for this tool that certainly matches ``call``; or its wildcards stand
        for what a shell obeys.
    """
    if isinstance(always, bool):
        return
    problem = ""
    if not isinstance(always, Rule):
        problem = f"always={always!r}: give True, False, or a Rule"
    elif always.tool != question.name:
        problem = f"always={always}: it is for other tools than {question.name!r}"
    elif any(isinstance(condition, Glob) and condition.allow_shell_characters for condition in always.where.values()):
        problem = f"always={always}: allow_shell_characters=True is for rules that are written beforehand"
    elif not covers(always, call, certainly=True):
        problem = f"always={always}: it does not match the call that it is to approve"
    if problem:
        raise InvalidAnswerError(question=question.id, problem=problem)


def check_continue(question: ContinueRequested, answer: Answer) -> Answer:
    """The answer, as it is.

    Raises:
      InvalidAnswerError: not an `Approve` or `Deny`.
    """
    if not isinstance(answer, (Approve, Deny)):
        raise _wrong_kind(question.id, answer, "Approve or Deny")
    if isinstance(answer, Approve) and not isinstance(answer.always, bool):
        raise InvalidAnswerError(question=question.id, problem="a limit is no tool call, which a rule could match")
    return answer


def _checked(given: object) -> dict[str, Any]:
    """What an answer holds, which nothing has checked yet: its class is only a claim."""
    if isinstance(given, dict):
        content = cast("dict[object, Any]", given)
        named = {name: value for name, value in content.items() if isinstance(name, str)}
        if len(named) == len(content):
            return named
    raise ValueError(f"it holds {given!r}, where a dict of names and JSON values is due")


def _wrong_kind(question: str, answer: object, wanted: str) -> InvalidAnswerError:
    return InvalidAnswerError(question=question, problem=f"it wants {wanted}, not {type(answer).__name__}")
