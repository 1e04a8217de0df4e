"""Errors: whose rule was broken, the facts as attributes, and a message that names the value and the way out."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import pkgutil
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from importlib import import_module
from types import ModuleType, SimpleNamespace

import pytest
import trio

import agentloop
import agentloop.asyncio
from agentloop import Agent, AgentLoopError, ModelError, Outcome, Tool, ToolError, Toolsets, UsageError, errors
from agentloop._core.portable_errors import PortableError
from agentloop.demo.catalogue import UnknownExampleError
from agentloop.errors import (
    AnswerError,
    BlockedError,
    CancelledRunError,
    ChildLimitError,
    InternalError,
    InvalidAnswerError,
    LimitReachedError,
    MissingExtraError,
    ModelRefusalError,
    ModelStatusError,
    ModelTimeoutError,
    NeedsInputError,
    OutputError,
    RunError,
    SessionBusyError,
    StoreError,
    ToolsetError,
    UnknownQuestionError,
)
from agentloop.events import StreamReason
from agentloop.hooks import HookWarning
from agentloop.mcp._sign_in import SignInError
from agentloop.outcome import error_of
from agentloop.providers._network import NetworkForbiddenError
from agentloop.stores import MemoryStore, stored_session
from agentloop.testing import ScriptedModel
from agentloop.testing.simulation.errors import Abandoned, InjectedInterrupt
from agentloop.testing.simulation.violation import Violation

BRANCHES = (UsageError, ModelError, ToolError, RunError)
ALL = [getattr(errors, name) for name in errors.__all__]


def test_every_error_is_exported() -> None:
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }

    assert defined == {*errors.__all__}


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_says_by_exactly_one_branch_whose_rule_was_broken(error: type[Exception]) -> None:
    assert issubclass(error, AgentLoopError)
    if error is not AgentLoopError:
        assert len([branch for branch in BRANCHES if issubclass(error, branch)]) == 1


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_says_what_it_means(error: type[Exception]) -> None:
    assert error.__doc__
    # `Retry` is named for what it asks of the model.
    assert error.__name__.endswith("Error") or error.__name__ == "Retry"


def test_all_errors_of_an_answer_can_be_caught_as_one() -> None:
    assert issubclass(UnknownQuestionError, AnswerError)
    assert issubclass(InvalidAnswerError, AnswerError)


def test_no_error_is_a_cancellation_or_ends_the_program() -> None:
    assert all(issubclass(error, Exception) for error in ALL)


@pytest.mark.parametrize(
    ("error", "message", "facts"),
    [
        (
            MissingExtraError(feature="openai:", extra="http", package="httpx2"),
            "openai: needs the package 'httpx2', which is not installed: pip install 'agentloop-trio[http]'",
            {"feature": "openai:", "extra": "http", "package": "httpx2"},
        ),
        (
            SessionBusyError(session="s1", stream="s1/1"),
            "session 's1' is busy with stream 's1/1': leave that stream's block first, or use another session",
            {"session": "s1", "stream": "s1/1"},
        ),
        (
            ChildLimitError(agent="c", path=["a", "b"], reason="it is too deep"),
            "agent 'c' cannot be opened inside a > b: it is too deep",
            {"agent": "c", "path": ("a", "b")},
        ),
        (
            UnknownQuestionError(given="x", open_ids=["a", "b"]),
            "cannot answer question 'x': open now: a, b",
            {"given": "x", "open_ids": ("a", "b")},
        ),
        (
            UnknownQuestionError(given="x", open_ids=[]),
            "cannot answer question 'x': none is open",
            {"open_ids": ()},
        ),
        (
            InvalidAnswerError(question="x", problem="`city`: missing"),
            "this answer does not fit question 'x': `city`: missing",
            {"question": "x", "problem": "`city`: missing"},
        ),
        (
            ModelTimeoutError(model="m", waiting_for="its first token", seconds=1.5),
            "model 'm' sent nothing for 1.5 s while waiting for its first token",
            {"model": "m", "waiting_for": "its first token", "seconds": 1.5},
        ),
        (
            ModelStatusError(model="m", status=429, body="slow down"),
            "model 'm': HTTP status 429: slow down",
            {"model": "m", "status": 429, "body": "slow down"},
        ),
        (ModelRefusalError(model="m", text="No."), "model 'm' refused to answer: No.", {"model": "m", "text": "No."}),
        (ModelRefusalError(model="m", text=""), "model 'm' refused to answer", {"text": ""}),
        (
            OutputError(model="m", attempts=3, problem="not JSON", text="Hm."),
            "model 'm' gave no valid output in 3 attempts; the last problem: not JSON",
            {"attempts": 3, "problem": "not JSON", "text": "Hm."},
        ),
        (ToolsetError(toolset="files", problem="has died"), "toolset 'files' has died", {"toolset": "files"}),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, Exception) else None,
)
def test_an_error_names_the_value_and_keeps_the_facts(
    error: AgentLoopError, message: str, facts: dict[str, object]
) -> None:
    assert str(error) == message
    assert {name: getattr(error, name) for name in facts} == facts


# ---------------------------------------------------------------------------------- copies

_FACTS: dict[str, object] = {
    "path": ["a", "b"],
    "open_ids": ["a", "b"],
    "seconds": 1.5,
    "status": 429,
    "attempts": 3,
    "code": 7,
    "expires": 1.5,
    "retry_after": 2.0,
    "outcome": Outcome(reason="limit"),
    "sim": SimpleNamespace(injection=None, fault=None, picks=(), granularity="", token="the token"),
    "limit": 128,
}


def _example(kind: type[BaseException]) -> BaseException:
    """An error of class ``kind``, with a value for each argument."""
    if kind.__init__ in (Exception.__init__, BaseException.__init__, AssertionError.__init__):
        return kind("some words", 7)
    arguments: dict[str, object] = {}
    words: list[object] = []
    for name, parameter in inspect.signature(kind).parameters.items():
        value = _FACTS.get(name, f"the {name}")
        if parameter.kind is parameter.KEYWORD_ONLY:
            arguments[name] = value
        else:
            words.append(value)
    return kind(*words, **arguments)


def _modules() -> list[ModuleType]:
    """All modules of the package, those of the extras included; but for the programs, which run when imported."""
    names = [module.name for module in pkgutil.walk_packages(agentloop.__path__, "agentloop.")]
    programs = ("agentloop._supervise", "agentloop.testing.pytest_plugin")
    return [import_module(name) for name in names if not name.endswith("__main__") and not name.startswith(programs)]


@cache
def _errors_of_the_package() -> list[type[BaseException]]:
    """All error classes that a user may meet: those with a public name that are ours, or in a public module."""
    kinds: list[type[BaseException]] = []
    for module in _modules():
        for name, value in vars(module).items():
            is_error = inspect.isclass(value) and issubclass(value, BaseException)
            if not is_error or value.__module__ != module.__name__ or name.startswith("_"):
                continue
            is_public = not any(part.startswith("_") for part in module.__name__.split("."))
            if (is_public and name in getattr(module, "__all__", ())) or issubclass(value, PortableError):
                kinds.append(value)
    return kinds


def _pickled(error: BaseException) -> BaseException:
    twin: BaseException = pickle.loads(pickle.dumps(error))
    return twin


COPIES = pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, _pickled])


@COPIES
def test_every_error_survives_pickle_and_copy_with_its_facts_notes_and_cause(
    copied: Callable[[BaseException], BaseException],
) -> None:
    kinds = _errors_of_the_package()
    assert {*ALL, NetworkForbiddenError, HookWarning, Violation, SignInError, UnknownExampleError} - {Abandoned} <= {
        *kinds
    }
    for kind in kinds:
        error = _example(kind)
        error.add_note("Before that: nothing")
        error.__cause__ = KeyError("k")
        error.__suppress_context__ = False

        twin = copied(error)

        assert (type(twin), str(twin), twin.args) == (kind, str(error), error.args)
        local = vars(kind).get("_local", ())
        assert {**vars(twin), **dict.fromkeys(local)} == {**vars(error), **dict.fromkeys(local)}
        if kind not in (Abandoned, InjectedInterrupt):
            assert repr(twin.__cause__) == "KeyError('k')"
            assert not twin.__suppress_context__


def test_each_name_of_an_error_names_one_class() -> None:
    classes: dict[str, set[type[BaseException]]] = {}
    for module in _modules():
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, PortableError) and value is not PortableError:
                classes.setdefault(name, set()).add(value)

    assert {name: kinds for name, kinds in classes.items() if len(kinds) > 1} == {}
    assert all(kind.__name__ == name for name, kinds in classes.items() for kind in kinds)


class _ReadsBackBadlyError(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize("cause", [OSError(lambda: None), _ReadsBackBadlyError("a", "b")])
def test_an_error_with_a_cause_that_cannot_be_pickled_survives_without_it(cause: Exception) -> None:
    error = ModelError("gone")
    error.__cause__ = cause

    assert (str(_pickled(error)), _pickled(error).__cause__) == ("gone", None)
    assert copy.copy(error).__cause__ is cause
    assert repr(copy.deepcopy(error).__cause__) == repr(cause)


def test_an_error_that_leads_back_to_itself_survives_pickle_with_its_causes() -> None:
    cause = ModelStatusError(model="m", status=503, body="busy")
    error = ModelError("the model failed")
    error.__cause__ = cause
    run_error = RunError("ended", outcome=Outcome(reason="failed", error=error))
    run_error.__cause__ = run_error.outcome.error  # type: ignore[attr-defined]
    cause.run = run_error  # type: ignore[attr-defined]

    twin = pickle.loads(pickle.dumps(ExceptionGroup("both", [run_error, ValueError("x")]))).exceptions[0]

    assert twin.outcome.error is twin.__cause__
    assert str(twin.__cause__.__cause__) == "model 'm': HTTP status 503: busy"
    assert twin.__cause__.__cause__.run is twin


# ------------------------------------------------------------------- a run without a result


@pytest.mark.parametrize("kind", [RunError, CancelledRunError, BlockedError, LimitReachedError, StoreError])
def test_an_error_of_a_run_keeps_its_outcome(kind: Callable[..., RunError]) -> None:
    outcome = Outcome(reason="limit")

    assert kind("ended", outcome=outcome).outcome is outcome
    assert kind("ended").outcome is None


@pytest.mark.parametrize(
    ("reason", "detail", "kind", "message"),
    [
        ("cancelled", "", CancelledRunError, "the run was stopped"),
        ("cancelled", "by a user", CancelledRunError, "the run was stopped: by a user"),
        ("blocked", "rude", BlockedError, "a hook blocked the run: rude"),
        ("limit", "turns: 3 of 3 used", LimitReachedError, "the run reached a limit: turns: 3 of 3 used"),
        ("interrupted", "", RunError, "the run ended without a result (interrupted)"),
        ("needs_input", "", NeedsInputError, "the run is parked: resume it with answers to nothing"),
    ],
)
def test_a_run_without_a_result_has_the_error_of_its_reason(
    reason: StreamReason, detail: str, kind: type[RunError], message: str
) -> None:
    outcome = Outcome(reason=reason, detail=detail)

    error = error_of(outcome)

    assert type(error) is kind
    assert str(error) == message
    assert isinstance(error, RunError)
    assert error.outcome is outcome


def test_a_run_that_failed_has_the_very_error_that_made_it_fail() -> None:
    error = ModelError("gone")

    assert error_of(Outcome(reason="failed", error=error)) is error


def test_a_run_that_completed_has_no_error() -> None:
    assert error_of(Outcome(reason="completed", output="Hi.")) is None


def test_a_bug_of_ours_is_told_apart_from_what_others_did_wrong() -> None:
    assert issubclass(InternalError, RunError)
    assert not issubclass(InternalError, (UsageError, ModelError, ToolError))


# ------------------------------------------------------------------------- one error in, one out


class _Nursery:
    """A toolset that holds a nursery open, as servers do."""

    name = "nursery"

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[_Nursery]:
        async with trio.open_nursery():
            yield self

    async def list_tools(self) -> list[Tool]:
        return []


AGENT = Agent(ScriptedModel("Hi.", repeat=True), toolsets=[_Nursery()])


@asynccontextmanager
async def _session() -> AsyncGenerator[object]:
    async with MemoryStore().open() as store, stored_session(store, "s") as session:
        yield session


BLOCKS: dict[str, Callable[[], AbstractAsyncContextManager[object]]] = {
    "stream": lambda: AGENT.stream("x"),
    "store": lambda: MemoryStore().open(),
    "session": _session,
    "toolsets": lambda: Toolsets(_Nursery()),
}
ASYNCIO_BLOCKS: dict[str, Callable[[], AbstractAsyncContextManager[object]]] = {
    "stream": lambda: agentloop.asyncio.stream(AGENT, "x"),
    "store": lambda: agentloop.asyncio.block(MemoryStore().open()),
    "host": agentloop.asyncio.TrioHost,
}


async def _raise_inside(block: AbstractAsyncContextManager[object]) -> None:
    error = KeyError("k")
    with pytest.raises(KeyError) as raised:
        async with block:
            raise error
    assert raised.value is error
    assert error.__context__ is None


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
async def test_an_error_inside_of_a_block_reaches_its_caller_without_a_group(
    block: Callable[[], AbstractAsyncContextManager[object]],
) -> None:
    await _raise_inside(block())


@pytest.mark.parametrize("block", ASYNCIO_BLOCKS.values(), ids=ASYNCIO_BLOCKS)
def test_an_error_inside_of_a_block_in_asyncio_reaches_its_caller_without_a_group(
    block: Callable[[], AbstractAsyncContextManager[object]],
) -> None:
    async def main() -> None:
        await _raise_inside(block())

    asyncio.run(main())
