"""The connection to an external agent: its process, the handshake, and its sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio
from attrs import frozen

from agentloop._core.foreign_errors import describe
from agentloop._core.json_text import is_array
from agentloop._core.redaction import redacted, visible
from agentloop._core.whole_json import json_of
from agentloop.acp._calls import Pending, Workplace
from agentloop.acp._peer import GoneError, Handle, Peer, RpcError
from agentloop.acp._program import Pipes
from agentloop.acp._wording import Abilities, Mark, dictionary, text_of_field
from agentloop.errors import ModelConnectionError, ModelError, ModelProtocolError, UsageError

__all__ = ["Connection", "Program"]

VERSION = 1
"""The version of the protocol."""
AUTH_REQUIRED = -32000


@frozen(kw_only=True)
class Program:
    """An external agent, and how to talk to it."""

    name: str
    """Name of the model in events and errors."""
    described: str
    """The agent and its command, for errors."""
    secrets: frozenset[str]
    """Texts that no error may show."""
    connect: Callable[[], AbstractAsyncContextManager[Pipes]]
    """Starts it, or opens the streams to it."""
    workplace: Workplace
    """Where this process works for it."""
    mcp_servers: Sequence[Mapping[str, Any]]
    """Servers of MCP that it is to use, in ACP's form."""
    config: Mapping[str, str]
    """Options of its sessions, such as ``mode`` and ``model``."""
    sign_in: str | None
    """Id of the way to sign in; ``None`` for none."""
    start_seconds: float
    """Seconds for it to start, and to begin a session."""
    pending: dict[str, Pending]
    """What waits for a tool call of a run, by the call's id; shared by all streams."""


class Connection:
    """The connection of one stream to an external agent, started as need be.

    Args:
      program: the external agent.
      nursery: runs the process, and ends it.
      handle: called with each request and notification of the agent, except of a replay.
      has_room: waits until more messages may be read.
      on_end: called when the agent has ended.
    """

    def __init__(
        self,
        program: Program,
        nursery: trio.Nursery,
        handle: Handle,
        has_room: Callable[[], Awaitable[None]],
        on_end: Callable[[], None],
    ) -> None:
        self._program = program
        self._nursery = nursery
        self._take = handle
        self._has_room = has_room
        self._on_end = on_end
        self._peer: Peer | None = None
        self._scope = trio.CancelScope()
        """Ends the program."""
        self._can_load = False
        self._auth_methods: list[Mapping[str, Any]] = []
        self.abilities = Abilities(image=False, embedded=False)
        """The kinds of content that the agent takes."""
        self.session = ""
        """Id of the agent's session; empty before it has begun."""
        self._replay: _Replay | None = None
        """Counts the prompts of a session that is being loaded."""

    @property
    def peer(self) -> Peer:
        """The agent. It has been started."""
        assert self._peer is not None
        return self._peer

    @property
    def is_alive(self) -> bool:
        """Whether the agent runs."""
        return self._peer is not None and not self._peer.problem

    # -------------------------------------------------------------------------- its start

    async def start(self) -> None:
        """Start the program, and shake hands.

        Raises:
          ModelError: it cannot be started, or does not speak the protocol.
          GoneError: it has ended.
        """
        self.session = ""
        await self._in_time(self._start)

    async def _in_time(self, step: Callable[..., Awaitable[None]], *args: Any) -> None:
        seconds = self._program.start_seconds
        with trio.move_on_after(seconds) as scope:
            await step(*args)
        if scope.cancelled_caught:
            words = "" if self._peer is None else self._peer.last_words
            raise self.error(
                f"{self.described} was not ready within {seconds:g} s{words}: start it by hand to see what it waits "
                "for, or give start_timeout=",
                ModelError,
            )

    async def _start(self) -> None:
        try:
            self._peer = await self._nursery.start(self._run)
        except OSError as error:
            problem = f"{self.described} cannot be started: {error.strerror or error}"
            raise self.error(problem, ModelConnectionError) from error
        workplace = self._program.workplace
        has_files = workplace.root is not None
        params = {
            "protocolVersion": VERSION,
            "clientCapabilities": {
                "fs": {"readTextFile": has_files, "writeTextFile": has_files},
                "terminal": workplace.has_terminal,
            },
            "clientInfo": {"name": "agentloop", "version": "0"},
        }
        result = dictionary(await self.peer.request("initialize", params))
        version = result.get("protocolVersion")
        if version != VERSION:
            raise self.error(
                f"{self.described} speaks version {version!r:.100} of ACP, and agentloop version {VERSION}: install a "
                f"release of it that speaks this one{self.peer.last_words}",
                ModelProtocolError,
            )
        abilities = dictionary(result.get("agentCapabilities"))
        kinds = dictionary(abilities.get("promptCapabilities"))
        self._can_load = abilities.get("loadSession") is True
        self.abilities = Abilities(image=kinds.get("image") is True, embedded=kinds.get("embeddedContext") is True)
        methods = result.get("authMethods")
        self._auth_methods = [dictionary(method) for method in methods] if is_array(methods) else []
        if self._program.sign_in is not None:
            try:
                await self.peer.request("authenticate", {"methodId": self._program.sign_in})
            except RpcError as error:
                problem = f"{self.described} does not sign in with {self._program.sign_in!r}: {error}. {self._ways()}"
                raise self.error(problem, ModelError) from None

    async def _run(self, task_status: trio.TaskStatus[Peer]) -> None:  # noqa: ASYNC114 - only `start` is used
        """Run the program to its end, which is that of the nursery at the latest."""
        peer: Peer | None = None
        try:
            with trio.CancelScope() as self._scope:
                async with self._program.connect() as pipes:
                    peer = Peer(pipes, self._handle, self._has_room, self._on_end)
                    task_status.started(peer)
                    # Where `start` was cancelled, this task still belongs to it, and must not be shielded.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    # From now on `end` ends it: a run that is cancelled has something to say to the agent first.
                    self._scope.shield = True
                    await peer.run()
        except Exception as error:
            if peer is None:
                raise
            peer.fail(describe(error))

    def end(self) -> None:
        """End the program."""
        self._scope.cancel()

    def _handle(self, id: int | str | None, method: str, params: Mapping[str, Any]) -> None:
        if self._replay is not None and id is None:
            self._replay.take(method, params)
        else:
            self._take(id, method, params)

    # ------------------------------------------------------------------------- its sessions

    async def begin_session(self) -> None:
        """Begin a session.

        Raises:
          ModelError: the agent begins none.
          GoneError: it has ended.
        """
        await self._in_time(self._begin_session)

    async def _begin_session(self) -> None:
        result = dictionary(await self.peer.request("session/new", self._where()))
        session = result.get("sessionId")
        if not isinstance(session, str) or not session:
            raise ModelProtocolError(f"{self.described} began a session without an id")
        self.session = session
        await self._configure(result)

    async def load_session(self, mark: Mark) -> bool:
        """Load an earlier session. Returns whether it is there, and has the prompts of the transcript, and no others.

        Raises:
          ModelError: the agent does not take the options of the session.
          GoneError: it has ended.
        """
        if self._can_load:
            await self._in_time(self._load_session, mark)
        return bool(self.session)

    async def _load_session(self, mark: Mark) -> None:
        replay = self._replay = _Replay()
        try:
            result = await self.peer.request("session/load", {"sessionId": mark.acp, **self._where()})
        except RpcError as error:
            if error.code == AUTH_REQUIRED:
                raise
            return
        finally:
            self._replay = None
        # After a rewind of ours, or a prompt that was cut off, the session has more. Some agents replay nothing.
        if replay.prompts in (0, mark.prompts):
            self.session = mark.acp
            await self._configure(dictionary(result))

    def _where(self) -> dict[str, Any]:
        return {"cwd": self._program.workplace.folder, "mcpServers": list(self._program.mcp_servers)}

    async def _configure(self, session: Mapping[str, Any]) -> None:
        """Choose the mode, the model and other options of the session."""
        options = session.get("configOptions")
        known = [dictionary(option) for option in options] if is_array(options) else []
        for name, value in self._program.config.items():
            found = next((option for option in known if name in (option.get("id"), option.get("category"))), None)
            params: dict[str, Any] = {"sessionId": self.session}
            if found is not None:
                method, params = "session/set_config_option", {**params, "configId": found.get("id"), "value": value}
            elif name in ("mode", "model"):
                # The older way.
                method, params = f"session/set_{name}", {**params, f"{name}Id": value}
            else:
                names = ", ".join(sorted(repr(option.get("id")) for option in known)) or "none"
                raise UsageError(f"{self.described} has no option {name!r}: it has {names}")
            try:
                await self.peer.request(method, params)
            except RpcError as error:
                problem = f"{self.described} does not take {name}={value!r}: {error}"
                raise self.error(problem, ModelError) from None

    # --------------------------------------------------------------------------- its errors

    @property
    def described(self) -> str:
        """The agent and its command, for errors."""
        return f"external agent {self._program.described}"

    def error(self, problem: str, kind: type[ModelError]) -> ModelError:
        """An error of ``kind`` that shows no secrets, and no characters that drive a terminal."""
        return kind(visible(redacted(problem, self._program.secrets)))

    def how_it_ended(self) -> ModelError:
        """The error for the end of the agent, with its last words."""
        words = "" if self._peer is None else self._peer.last_words
        problem = "" if self._peer is None else self._peer.problem
        return self.error(f"{self.described} {problem or 'has ended'}{words}", ModelConnectionError)

    def error_for(self, error: RpcError | GoneError) -> ModelError:
        """The error for a request that the agent has not carried out."""
        if isinstance(error, GoneError):
            return self.how_it_ended()
        if error.code != AUTH_REQUIRED:
            details = f" ({json_of(error.data)[:500]})" if error.data is not None else ""
            problem = f"{self.described} answered with an error: {error}{details}{self.peer.last_words}"
            return self.error(problem, ModelError)
        return self.error(
            f"{self.described} needs a sign-in: sign in with its own program, or give its key in env={{...}}, and "
            f"sign_in= if it has to be told. {self._ways()}",
            ModelError,
        )

    def _ways(self) -> str:
        """The ways to sign in, as the agent names them."""
        ways = [
            f"{text_of_field(method.get('id'))!r}, {text_of_field(method.get('name'))}"
            + (f" ({text_of_field(method.get('description'))})" if method.get("description") else "")
            for method in self._auth_methods
        ]
        return f"Its ways to sign in: {'; '.join(ways) or 'it names none'}"


class _Replay:
    """Counts the prompts in the replay of a session. Each may come in several pieces."""

    def __init__(self) -> None:
        self.prompts = 0
        self._is_in_prompt = False

    def take(self, method: str, params: Mapping[str, Any]) -> None:
        if method == "session/update":
            is_prompt = dictionary(params.get("update")).get("sessionUpdate") == "user_message_chunk"
            self.prompts += is_prompt and not self._is_in_prompt
            self._is_in_prompt = is_prompt
