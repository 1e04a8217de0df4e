"""What the endpoints of all protocols share: agents by name, sessions by principal, and the runs of the server."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, cast

from starlette.requests import Request

from agentloop._choosing import model_name, nearest
from agentloop._core.catalogue import check_effort
from agentloop.agent import Agent
from agentloop.config import check_model
from agentloop.errors import UsageError
from agentloop.messages import UserMessage
from agentloop.models import Model, ModelChoice
from agentloop.serving._connections import BodyLimits, read_body
from agentloop.serving._errors import Refusal
from agentloop.serving._runs import AnswersTo, LiveRun, OnDisconnect, Runs
from agentloop.serving._security import is_session_of, named_session, new_session

__all__ = ["PRINCIPAL", "Service", "agents_by_name", "checked_offers", "models_by_name", "package_version"]

PRINCIPAL = "agentloop.principal"
"""The key in the scope of a request that has its principal."""


def agents_by_name(agents: Agent | Mapping[str, Agent] | Sequence[Agent]) -> dict[str, Agent]:
    """The agents by the names that clients use for them: their own, unless the program gives others.

    Raises:
      UsageError: there is none, two have one name, or something is no agent.
    """
    if isinstance(agents, Mapping):
        named = dict(agents)
    else:
        is_several = isinstance(cast("object", agents), Sequence)
        listed = list(cast("Sequence[Agent]", agents)) if is_several else [cast("Agent", agents)]
        if not all(isinstance(cast("object", agent), Agent) for agent in listed):
            raise UsageError(f"a server serves an Agent, or several: not {agents!r}")
        named = {agent.name: agent for agent in listed}
        if len(named) < len(listed):
            raise UsageError("two of the agents have the same name: give them others, as in {'name': agent}")
    if not named or not all(isinstance(cast("object", agent), Agent) for agent in named.values()):
        raise UsageError(f"a server serves an Agent, or several: not {agents!r}")
    return named


def models_by_name(models: Mapping[str, Model | str] | Sequence[str]) -> dict[str, Model | str]:
    """The models that clients may choose, by their names.

    Raises:
      UsageError: something is no model.
    """
    if isinstance(models, str):
        raise UsageError(f"models= lists names of models, not {models!r}: put it in brackets")
    offered: dict[str, Model | str] = {}
    offered.update(models if isinstance(models, Mapping) else {name: name for name in models})
    for name, model in offered.items():
        if not isinstance(cast("object", name), str) or not name:
            raise UsageError(f"models= maps names to models, not {name!r}")
        check_model(model)
    return offered


def checked_offers(agents: Iterable[Agent], names: Sequence[str]) -> Sequence[str]:
    """``names`` of models that are offered.

    Raises:
      UsageError: a name has no provider, and no agent has a model of that name.
    """
    own = [name for agent in agents for name in agent.models]
    for name in names:
        if ":" not in name and name not in own:
            close = nearest(name, own)
            hint = f"did you mean {' or '.join(close)}?" if close else f"they are: {', '.join(own) or 'none'}"
            raise UsageError(
                f"model {name!r} is neither provider:model nor a name in the models= of an agent that is served; {hint}"
            )
    return names


def package_version() -> str:
    """The version of agentloop, for clients that ask for it."""
    try:
        return version("agentloop-trio")
    except PackageNotFoundError:
        # The package is used from a folder.
        return "0"


class Service:
    """The agents and the sessions of a server, as its endpoints see them."""

    def __init__(
        self,
        agents: Mapping[str, Agent],
        body_limits: BodyLimits,
        deps: Callable[[str], Any] | None,
        on_disconnect: OnDisconnect | None,
        models: Mapping[str, Model | str] | None = None,
    ) -> None:
        self.agents = agents
        self.models: Mapping[str, Model | str] = {} if models is None else models
        """The models that clients may choose, by the names that they use for them."""
        self.open_runs: Runs | None = None
        self._body_limits = body_limits
        self._deps = deps
        self._on_disconnect: OnDisconnect | None = on_disconnect

    @property
    def runs(self) -> Runs:
        """The runs. Raises `Refusal` outside of the block that runs them."""
        if self.open_runs is None:
            raise Refusal(503, "the server has not started yet, or is leaving")
        return self.open_runs

    def agent(self, name: str) -> Agent:
        """The agent ``name``, or the first one. Raises `Refusal`."""
        if not name:
            return next(iter(self.agents.values()))
        if name not in self.agents:
            for agent in self.agents.values():
                # A session of a team is of the agent that has the conversation.
                if name in agent.members:
                    return agent
            raise Refusal(404, f"there is no agent {name[:100]!r} here; there are: {', '.join(self.agents)}")
        return self.agents[name]

    def agent_and_model(self, name: str) -> tuple[str, str]:
        """The names of the agent and of the offered model that ``"agent/model"`` stands for; an empty one for none."""
        for agent in self.agents:
            model = name.removeprefix(f"{agent}/")
            if name not in self.agents and model != name and model in self.models:
                return agent, model
        return name, ""

    def agent_that_ran(self, own_name: str) -> Agent:
        """The agent that is called ``own_name`` in the events of its runs. Raises `Refusal`.

        Clients may know it by another name: the program that serves it has given it one.
        """
        return self.agent(self.name_of(own_name) or own_name)

    def name_of(self, own_name: str) -> str:
        """The name that clients use for the agent called ``own_name``; empty if there is none."""
        if own_name in self.agents and self.agents[own_name].name == own_name:
            return own_name
        return next((name for name, agent in self.agents.items() if agent.answers_to(own_name)), "")

    def check_choice(self, agent: Agent, choice: ModelChoice | None) -> None:
        """Raise `Refusal` if a client may not choose so for a run of ``agent``."""
        if choice is None:
            return
        name = str(choice.model or "")
        if name and name not in self.models:
            close = nearest(name[:100], self.models)
            there = (
                f"did you mean {' or '.join(close)}?"
                if close
                else f"those that can: {', '.join(self.models) or 'none'}"
            )
            raise Refusal(404, f"model {name[:100]!r} cannot be chosen here; {there}")
        try:
            check_effort(self.model_behind(name) if name else model_name(agent.model), choice.reasoning_effort)
        except UsageError as error:
            raise Refusal(400, str(error)) from error

    def model_behind(self, name: str) -> str:
        """The whole name of the model that clients call ``name``: an agent may have a name of its own for it."""
        model = self.models[name]
        if isinstance(model, str):
            model = next((agent.models[model] for agent in self.agents.values() if model in agent.models), model)
        return model_name(model)

    async def body(self, request: Request) -> bytes:
        """The body of the request, within limits. Raises `Refusal`."""
        return await read_body(request, self._body_limits)

    @staticmethod
    def principal(request: Request) -> str:
        """The principal of the request."""
        principal: str = request.scope[PRINCIPAL]
        return principal

    def session(self, request: Request) -> str:
        """The session in the path of the request. Raises `Refusal` if it is not of the request's principal."""
        session: str = request.path_params["session"]
        if not is_session_of(self.principal(request), session):
            raise Refusal(404, "there is no such session")
        return session

    def named_session(self, request: Request, name: str) -> str:
        """The session that a client calls ``name``; a new one if it has no name."""
        return self.session_named(self.principal(request), name)

    @staticmethod
    def session_named(principal: str, name: str) -> str:
        """The session that a client of ``principal`` calls ``name``; a new one if it has no name."""
        if not name:
            return new_session(principal)
        return name if is_session_of(principal, name) else named_session(principal, name)

    async def start(
        self,
        request: Request,
        session: str,
        agent: Agent,
        prompt: UserMessage | None,
        *,
        answers: AnswersTo | None = None,
        choice: ModelChoice | None = None,
        on_question: Literal["reader", "park", "decline"],
        on_disconnect: OnDisconnect,
    ) -> LiveRun:
        """Begin a run for the principal of ``request``, or resume one: see `Runs.start`."""
        return await self.start_for(
            self.principal(request),
            session,
            agent,
            prompt,
            answers=answers,
            choice=choice,
            on_question=on_question,
            on_disconnect=on_disconnect,
        )

    async def start_for(
        self,
        principal: str,
        session: str,
        agent: Agent,
        prompt: UserMessage | None,
        *,
        answers: AnswersTo | None = None,
        choice: ModelChoice | None = None,
        on_question: Literal["reader", "park", "decline"],
        on_disconnect: OnDisconnect,
    ) -> LiveRun:
        """Begin a run for ``principal``, or resume one: see `Runs.start`."""
        policy: OnDisconnect = self._on_disconnect if self._on_disconnect is not None else on_disconnect
        deps = None if self._deps is None else self._deps(principal)
        return await self.runs.start(
            session,
            agent,
            prompt,
            answers=answers,
            on_question=on_question,
            on_disconnect=policy,
            deps=deps,
            choice=choice,
            models=self.models,
        )
