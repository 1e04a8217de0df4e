"""The application: an ASGI app that serves agents, under trio or under asyncio."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol, cast

import trio
from starlette.routing import Match, Route, Router
from starlette.types import Message, Receive, Scope, Send

from agentloop._runtime.logs import SERVING
from agentloop.agent import Agent
from agentloop.asyncio import TrioHost, aio_as_trio
from agentloop.errors import MissingExtraError, UsageError
from agentloop.journal import Store
from agentloop.models import Model
from agentloop.serving._a2a_routes import a2a_routes
from agentloop.serving._connections import BodyLimits, JsonResponse, UnreadBody
from agentloop.serving._enqueued import EnqueuedRuns
from agentloop.serving._errors import Refusal, refusal_of
from agentloop.serving._event_routes import EventRoutes
from agentloop.serving._page import Page, as_visitor
from agentloop.serving._protocol_routes import PROTOCOLS, protocol_routes
from agentloop.serving._runs import OnDisconnect, RunLimits, Runs
from agentloop.serving._security import LOCAL, Authenticator, ClientRequest, Sites, check_local, check_site
from agentloop.serving._service import PRINCIPAL, Service, agents_by_name, checked_offers, models_by_name
from agentloop.stores import MemoryStore

__all__ = ["ALL_PROTOCOLS", "ServedApp", "app"]

ALL_PROTOCOLS = ("events", *PROTOCOLS, "a2a", "mcp")
"""The words in ``protocols=``."""

AUTHENTICATOR_SECONDS = 10.0


class McpEndpoint(Protocol):
    """`agentloop.serving._mcp_routes.McpEndpoint`, whose module imports the SDK."""

    def routes(self) -> Sequence[Route]:
        """The paths."""
        ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """Keep protocol sessions while the block runs."""
        ...


def app(
    agents: Agent | Mapping[str, Agent] | Sequence[Agent],
    *,
    store: Store | None = None,
    protocols: Sequence[str] | None = None,
    page: bool = True,
    models: Mapping[str, Model | str] | Sequence[str] = (),
    authenticate: Authenticator | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    deps: Callable[[str], Any] | None = None,
    on_disconnect: OnDisconnect | None = None,
    max_body_bytes: int = 10_000_000,
    body_seconds: float = 30.0,
    max_runs: int = 1000,
    park_after: float = 300.0,
    lease_seconds: float = 30.0,
    enqueue: bool = False,
) -> ServedApp:
    """Make an ASGI app that serves agents: ``await serving.run(serving.app(agent))``.

    Runs are detached: a run belongs to the app, and a connection only reads it. A session has one run at a time. Give
    the app a store, and its sessions, with unfinished runs and open questions, outlive its process.

    Args:
      agents: an agent, several, or several with the names that clients use for them.
      store: where sessions are saved; in memory, if not given.
      protocols: ``"events"``, ``"ag-ui"``, ``"openai"``, ``"vercel"``, ``"a2a"``, ``"mcp"``, which needs the extra
        ``mcp``; all that are installed, if not given.
      page: whether to serve the page at ``/``, on which people talk to the agents. It uses the protocol ``events``, and
        is not served without that. Its files are the same for all principals, and need no credentials.
      models: the models that clients may choose for a session, by the names that they use for them:
        ``["openai:gpt-5", "fast"]`` with a name of ``Agent(models={...})``, or ``{"quick": "openai:gpt-5-mini"}``.
        None, if not given: whoever chooses a model spends the money of the server.
      authenticate: a function from the request to its principal, or ``None`` to refuse it: `BearerTokens`, or your own,
        async or not. Without one, only requests of this machine are answered.
      hosts: names under which clients reach the server, such as ``"chat.example.com"``, besides those of this machine.
      origins: other sites whose pages may use the server, such as ``"https://app.example.com"``. CORS is closed for all
        others.
      deps: a function from the principal to the ``deps`` of its runs.
      on_disconnect: what happens to a run when its last reader goes away: ``"continue"``, or ``"stop"``. If not given,
        runs of the protocols ``events`` and ``a2a`` continue, and those of the others stop.
      max_body_bytes: length of a request's body.
      body_seconds: seconds that a client may take to send it.
      max_runs: runs at once.
      park_after: seconds that a question may be open, or a run be paused, before the run is parked. The question can be
        answered, and the run resumed, afterwards as before.
      lease_seconds: see `agentloop.stores.stored_session`.
      enqueue: run no agent here: put prompts, answers and stops into the mailboxes of the store, where workers
        (`agentloop.engines`) find them, and read the events of their runs. Any number of servers may share the store.
        ``deps``, ``park_after`` and ``lease_seconds`` are the workers' then.

    Raises:
      UsageError: an argument is wrong.
      MissingExtraError: ``protocols`` lists ``"mcp"``, and its extra is not installed.
    """
    if protocols is None:
        protocols = [word for word in ALL_PROTOCOLS if word != "mcp" or find_spec("mcp_types") is not None]
    unknown = [word for word in protocols if word not in ALL_PROTOCOLS]
    if isinstance(protocols, str) or unknown or not protocols:
        raise UsageError(f"protocols= lists some of {', '.join(ALL_PROTOCOLS)}, and not {protocols!r}")
    if on_disconnect not in (None, "continue", "stop"):
        raise UsageError(f"on_disconnect is 'continue' or 'stop', not {on_disconnect!r}")
    if hosts and authenticate is None:
        raise UsageError("hosts= names a server that others reach, so give it authenticate=, too: BearerTokens, say")
    if enqueue and store is None:
        raise UsageError("enqueue=True puts prompts into a store that workers have, too: give it store=")
    if enqueue and deps is not None:
        raise UsageError("enqueue=True runs no agent here: give deps= to the workers")
    if enqueue and models:
        raise UsageError("enqueue=True runs no agent here, so that no model can be chosen here: leave models= out")
    served, offered = agents_by_name(agents), models_by_name(models)
    if not isinstance(models, Mapping):
        checked_offers(served.values(), models)
    service = Service(served, BodyLimits(max_body_bytes, body_seconds), deps, on_disconnect, offered)
    return ServedApp(
        service,
        MemoryStore() if store is None else store,
        protocols,
        Page() if page and "events" in protocols else None,
        authenticate,
        Sites.of(hosts, origins),
        RunLimits(max_runs, park_after, lease_seconds),
        enqueue=enqueue,
    )


class ServedApp:
    """An ASGI app that serves agents. Made by `app`.

    `agentloop.serving.run` serves it. So does any ASGI server, on trio or on asyncio, which starts and ends it by the
    lifespan protocol. Inside of another app, whose lifespan is its own, one of the blocks starts and ends it: `running`
    under trio, `hosted` under asyncio.
    """

    def __init__(
        self,
        service: Service,
        store: Store,
        protocols: Sequence[str],
        page: Page | None,
        authenticate: Authenticator | None,
        sites: Sites,
        limits: RunLimits,
        *,
        enqueue: bool,
    ) -> None:
        self._runs = EnqueuedRuns if enqueue else Runs
        self._service = service
        self._store = store
        self._page = page
        self._authenticate = authenticate
        self._sites = sites
        self._limits = limits
        self._host: TrioHost | None = None
        self._mcp = _mcp_endpoint(service, protocols) if "mcp" in protocols else None
        routes = [route for word in protocols for route in self._routes(word)]
        self.routes: Sequence[Route] = routes if page is None else [*routes, *page.routes()]
        """The endpoints."""
        for route in self.routes:
            # Starlette adds it to GET. The head of a stream of events has no end that a client could wait for.
            (route.methods or set()).discard("HEAD")
        # A redirect of Starlette's would be an address of plain HTTP, behind a proxy that ends TLS.
        self._router = Router(self.routes, default=_no_endpoint, redirect_slashes=False)

    def _routes(self, word: str) -> Sequence[Route]:
        match word:
            case "events":
                return EventRoutes(self._service).routes()
            case "a2a":
                return a2a_routes(self._service)
            case "mcp" if self._mcp is not None:
                return self._mcp.routes()
            case _:
                return protocol_routes(self._service, word)

    @property
    def has_authenticator(self) -> bool:
        """Whether the app knows the principals of its requests, so that it may be served beyond this machine."""
        return self._authenticate is not None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Runs]:
        """Open the store and run the app, under trio, while the block runs.

        Runs that have not ended by its end are cut off. The app that opens the store next resumes them.
        """
        if self._service.open_runs is not None:
            raise UsageError("this app runs already: it has one block, or one server, at a time")
        mcp = _nothing() if self._mcp is None else self._mcp.running()
        async with self._store.open() as store, self._runs.open(store, self._limits) as runs, mcp:
            self._service.open_runs = runs
            try:
                yield runs
            finally:
                self._service.open_runs = None

    @asynccontextmanager
    async def hosted(self) -> AsyncGenerator[ServedApp]:
        """Run the app under asyncio while the block runs, as part of a FastAPI app.

        ::

            served = serving.app(agent)

            @asynccontextmanager
            async def lifespan(app):
                async with served.hosted():
                    yield

            app = FastAPI(lifespan=lifespan)
            app.mount("/agents", served)
        """
        async with TrioHost() as host, host.block(self.running()):
            self._host = host
            try:
                yield self
            finally:
                self._host = None

    async def drain(self, seconds: float) -> None:
        """Begin no more runs, and return when all have ended or are parked, after ``seconds`` at the latest."""
        if self._service.open_runs is not None:
            await self._service.open_runs.drain(seconds)

    # --------------------------------------------------------------------------- requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or follow the lifespan of a server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif trio.lowlevel.in_trio_task():
            await self._answer(scope, receive, send)
        elif self._host is None:
            # A server on asyncio whose lifespan has not begun, or has ended.
            await JsonResponse({"error": {"message": STOPPED}}, status_code=503)(scope, receive, send)
        else:
            # The functions of the server are asyncio's, and the app calls them from trio.
            await self._host.call(self._answer, scope, aio_as_trio(receive), aio_as_trio(send))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            # `running` may have been entered already: by `agentloop.serving.run`, or by the app around this one.
            is_running = self._service.open_runs is not None
            opening = _nothing() if is_running else self.running() if trio.lowlevel.in_trio_task() else self.hosted()
            async with opening:
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            SERVING.error("the app could not start, or not end", exc_info=error)
            failed: Message = {"type": "lifespan.startup.failed", "message": str(error)}
            await send(failed)  # noqa: ASYNC120 - a server that is cancelled asks no more
            raise
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # The app has no websockets.
            await send({"type": "websocket.close", "code": 1000})
            return
        body = UnreadBody(scope, receive)
        head, receive = _Head(send, body), body.receive
        try:
            request = _head_of(scope)
            is_page = self._page is not None and self._page.has(scope)
            head.origin = check_site(self._sites, as_visitor(request.headers) if is_page else request.headers)
            if request.method == "OPTIONS" and head.origin:
                await head.preflight(scope, receive)
                return
            scope = {**scope, PRINCIPAL: await self._principal(request, is_public=is_page)}
            self._check_method(scope)
            await self._router(scope, receive, head.send)
        except Exception as error:
            refusal = refusal_of(error)
            if head.has_begun:
                # What is missing of the response must not look like its end: the server closes the connection.
                raise
            content = {"error": {"message": refusal.message, "type": _kind(refusal.status)}}
            await JsonResponse(content, refusal.status, refusal.headers)(scope, receive, head.send)

    def _check_method(self, scope: Scope) -> None:
        """Raise `Refusal` if the path has endpoints, and none of them for the method of the request.

        Starlette would answer with text that is not JSON, or raise an error that only the app around this one handles.
        """
        routes = [route for route in self.routes if route.matches(scope)[0] is not Match.NONE]
        allowed = sorted({method for route in routes for method in route.methods or ()})
        if allowed and scope["method"] not in allowed:
            raise Refusal(
                405,
                f"there is no {scope['method'][:20]} of {scope['path'][:200]!r}; there is {' and '.join(allowed)}",
                headers={"allow": ", ".join(allowed)},
            )

    async def _principal(self, request: ClientRequest, *, is_public: bool) -> str:
        """The principal of the request; empty for the files of the page, which have none. Raises `Refusal`."""
        if self._authenticate is None:
            check_local(request.client, request.headers)
            return LOCAL
        if is_public:
            return ""
        with trio.fail_after(AUTHENTICATOR_SECONDS):
            given: Any = self._authenticate(request)
            principal = await given if inspect.isawaitable(given) else given
        if principal is None or principal == "":
            raise Refusal(401, "the request has no valid credentials", headers={"www-authenticate": "Bearer"})
        if not isinstance(principal, str):
            raise UsageError(f"an authenticator gives the name of a principal, or None, and not {type(principal)}")
        return principal


async def _no_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    await trio.lowlevel.checkpoint()
    raise Refusal(404, f"there is nothing at {str(scope['path'])[:200]!r}")


STOPPED = "the server has not started yet, or is leaving"


@asynccontextmanager
async def _nothing() -> AsyncGenerator[None]:
    yield


def _mcp_endpoint(service: Service, protocols: Sequence[str]) -> McpEndpoint:
    if find_spec("mcp_types") is None:
        raise MissingExtraError(feature='serving.app(protocols=["mcp"])', extra="mcp", package="mcp")
    # The SDK is imported here, since apps without it take a second less to start.
    module = import_module("agentloop.serving._mcp_routes")
    endpoint: McpEndpoint = module.McpEndpoint(service, is_answered_elsewhere="events" in protocols)
    return endpoint


def _kind(status: int) -> str:
    return "invalid_request_error" if status < 500 else "server_error"


def _head_of(scope: Scope) -> ClientRequest:
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    client = cast("tuple[str, int] | None", scope.get("client"))
    return ClientRequest(
        method=scope["method"], path=scope["path"], headers=headers, client="" if client is None else client[0]
    )


class _Head:
    """Adds what every response has to its head, and sends it after the request's body."""

    def __init__(self, send: Send, body: UnreadBody) -> None:
        self._send = send
        self._body = body
        self.has_begun = False
        self.origin = ""
        """The origin of another site whose page may read the response; empty if there is none."""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = await self._body.discard(message.get("headers", ()))
            self.has_begun = True
            message = {**message, "headers": [*headers, *self._added()]}
        await self._send(message)

    def _added(self) -> list[tuple[bytes, bytes]]:
        added = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"), (b"vary", b"origin")]
        if self.origin:
            exposed = b"x-vercel-ai-ui-message-stream, mcp-session-id"
            added.append((b"access-control-allow-origin", self.origin.encode("latin-1")))
            added.append((b"access-control-expose-headers", exposed))
        return added

    async def preflight(self, scope: Scope, receive: Receive) -> None:
        """Answer a browser that asks whether a page of another site may send a request."""
        headers = {
            "access-control-allow-methods": "GET, POST, PATCH, DELETE",
            "access-control-allow-headers": (
                "authorization, content-type, last-event-id, a2a-version, a2a-extensions, "
                "mcp-protocol-version, mcp-session-id, mcp-method, mcp-name"
            ),
            "access-control-max-age": "600",
        }
        await JsonResponse(b"", 204, headers)(scope, receive, self.send)
