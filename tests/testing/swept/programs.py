"""Twenty small programs, as strangers write them. Each has a right form, and one with a fault in its cleanup.

``broken`` chooses. Nothing here knows that it is simulated, but for fakes that ask for a seam.
"""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import anyio.to_thread
import trio
import trio.lowlevel

from agentloop.testing.simulation import Sim

PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {}


def listed(function: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    PROGRAMS[function.__name__] = function
    return function


# ------------------------------------------------------------------------------------------ queues and workers


@listed
async def job_queue(*, broken: bool) -> None:
    """Planted: a job that was taken is not put back when its worker is cancelled."""
    waiting, done = deque(["a", "b", "c"]), set[str]()

    async def work() -> None:
        while waiting:
            job = waiting.popleft()
            try:
                await trio.sleep(1)
            except trio.Cancelled:
                if not broken:
                    waiting.append(job)
                raise
            done.add(job)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            nursery.start_soon(work)
    finally:
        assert done | set(waiting) == {"a", "b", "c"}, "a job is lost"


@listed
async def retries(*, broken: bool) -> None:
    """Planted: an attempt that times out leaves its slot of the semaphore taken."""
    slots = trio.Semaphore(2)

    async def attempt(seconds: float) -> bool:
        await slots.acquire()
        if broken:
            await trio.sleep(seconds)
            slots.release()
            return True
        try:
            await trio.sleep(seconds)
        finally:
            slots.release()
        return True

    for seconds in (1, 2):
        with trio.move_on_after(5):
            await attempt(seconds)
    assert slots.value == 2, "a slot is taken for good"


@listed
async def graceful_shutdown(*, broken: bool) -> None:
    """Planted: the shutdown waits under a shield for a worker that was cancelled, and cannot answer."""
    asked, answered = trio.Event(), trio.Event()

    async def worker() -> None:
        try:
            await asked.wait()
            await trio.sleep(1)
        finally:
            if not broken:
                answered.set()
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        try:
            await trio.sleep(3)
        finally:
            asked.set()
            with trio.CancelScope(shield=True):
                await answered.wait()


@listed
async def rate_limiter(*, broken: bool) -> None:
    """Planted: who is cancelled while waiting for its turn leaves the queue of waiting tasks too long."""
    waiting, free_at = 0, 0.0

    async def limited() -> None:
        nonlocal waiting, free_at
        waiting += 1
        mine = max(trio.current_time(), free_at)
        free_at = mine + 1
        if broken:
            await trio.sleep_until(mine)
            waiting -= 1
            return
        try:
            await trio.sleep_until(mine)
        finally:
            waiting -= 1

    try:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(limited)
    finally:
        assert waiting == 0, f"{waiting} wait for ever"


# --------------------------------------------------------------------------------------------------- caches, locks


@listed
async def single_flight_cache(*, broken: bool) -> None:
    """Planted: the task that loads is cancelled, and the tasks that wait for it are never woken."""
    loading: dict[str, trio.Event] = {}
    cache: dict[str, str] = {}

    async def get(key: str) -> str:
        while key not in cache:
            if key in loading:
                await loading[key].wait()
                continue
            loading[key] = event = trio.Event()
            if broken:
                await trio.sleep(1)
                cache[key] = key.upper()
                del loading[key]
                event.set()
                continue
            try:
                await trio.sleep(1)
                cache[key] = key.upper()
            finally:
                del loading[key]
                event.set()
        return cache[key]

    async def impatient() -> None:
        with trio.move_on_after(3):
            await get("a")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(impatient)
        nursery.start_soon(get, "a")


@listed
async def read_write_lock(*, broken: bool) -> None:
    """Planted: a writer that gives up while it waits keeps new readers out."""
    readers, writers_waiting = 0, 0
    changed = trio.Condition()

    async def read() -> None:
        nonlocal readers
        async with changed:
            while writers_waiting:
                await changed.wait()
            readers += 1
        try:
            await trio.sleep(2)
        finally:
            with trio.CancelScope(shield=True):
                async with changed:
                    readers -= 1
                    changed.notify_all()

    async def write() -> None:
        nonlocal writers_waiting
        async with changed:
            writers_waiting += 1
            try:
                while readers:
                    await changed.wait()
            except trio.Cancelled:
                if not broken:
                    writers_waiting -= 1
                    changed.notify_all()
                raise
            writers_waiting -= 1
            changed.notify_all()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(1)
        with trio.move_on_after(5):
            await write()
        await read()


@listed
async def connection_pool(*, broken: bool) -> None:
    """Planted: a connection that is being opened when its user is cancelled counts as open for good."""
    opened, limit = 0, trio.CapacityLimiter(1)

    @asynccontextmanager
    async def connection() -> AsyncGenerator[None]:
        nonlocal opened
        async with limit:
            opened += 1
            if broken:
                await trio.sleep(1)
            try:
                await trio.sleep(1)
                yield
            finally:
                opened -= 1

    async def use() -> None:
        async with connection():
            await trio.sleep(1)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            nursery.start_soon(use)
    finally:
        assert opened == 0, "a connection counts as open"


# ------------------------------------------------------------------------------------------------------ networks


@listed
async def echo_server(*, broken: bool) -> None:
    """Planted: a handler lets the error of a lost connection stop the whole server."""

    async def handler(stream: trio.SocketStream) -> None:
        if broken:
            async for data in stream:
                await trio.sleep(1)
                await stream.send_all(data.upper())
            return
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                await trio.sleep(1)
                await stream.send_all(data.upper())

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, handler, 7000)
        for _ in range(2):
            with trio.move_on_after(5):
                async with await trio.open_tcp_stream("localhost", 7000) as stream:
                    await stream.send_all(b"ab")
                    await stream.send_all(b"cd")
                    received = b""
                    while len(received) < 4 and (data := await stream.receive_some()):
                        received += data
        nursery.cancel_scope.cancel()


@listed
async def http_client(*, broken: bool) -> None:
    """Planted: a connection over which a request fails is not closed."""

    async def handler(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for _ in stream:
                await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")

    async def request() -> bytes:
        stream = await trio.open_tcp_stream("example.com", 80)
        if broken:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            answer = await stream.receive_some()
            await stream.aclose()
            return answer
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            return await stream.receive_some()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, handler, 80))
        with suppress(OSError, trio.BrokenResourceError):
            await request()
        nursery.cancel_scope.cancel()


@listed
async def proxy(*, broken: bool) -> None:
    """Planted: when one direction ends, the other one is not told."""

    async def origin(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in stream:
                await stream.send_all(data)

    serving = 0

    async def copy(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                async for data in source:
                    await sink.send_all(data)
            except trio.BrokenResourceError:
                if not broken:
                    await sink.send_eof()
                return
            await sink.send_eof()

    async def proxied(stream: trio.SocketStream) -> None:
        nonlocal serving
        serving += 1
        try:
            with suppress(OSError):
                async with await trio.open_tcp_stream("origin", 80) as upstream, trio.open_nursery() as nursery:
                    nursery.start_soon(copy, stream, upstream)
                    nursery.start_soon(copy, upstream, stream)
        finally:
            serving -= 1

    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, origin, 80)
        await nursery.start(trio.serve_tcp, proxied, 8080)
        with suppress(OSError, trio.BrokenResourceError):
            async with await trio.open_tcp_stream("localhost", 8080) as stream:
                await stream.send_all(b"hello")
                await stream.send_eof()
                while await stream.receive_some():
                    pass
        await trio.sleep(1)
        assert serving == 0, "the proxy serves a client that is gone"
        nursery.cancel_scope.cancel()


# --------------------------------------------------------------------------------------- actors, supervisors, pubsub


@listed
async def actor(*, broken: bool) -> None:
    """Planted: an actor that is cancelled never answers those who have asked."""
    send, receive = trio.open_memory_channel[tuple[int, list[int], trio.Event]](10)

    async def live() -> None:
        async with receive:
            with trio.move_on_after(10):
                async for number, answer, answered in receive:
                    try:
                        await trio.sleep(1)
                        answer.append(number * 2)
                    finally:
                        if not broken:
                            answered.set()
                    answered.set()

    async def ask(number: int) -> None:
        answer: list[int] = []
        answered = trio.Event()
        with suppress(trio.BrokenResourceError):
            await send.send((number, answer, answered))
            await answered.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        async with send:
            await ask(1)


@listed
async def supervisor(sim: Sim, *, broken: bool) -> None:
    """Planted: a child that fails is started again while its old self still holds the lock."""
    lock = trio.Lock()
    ended = 0

    async def child() -> None:
        nonlocal ended
        if broken:
            await lock.acquire()
            await sim.seam("child")
            lock.release()
        else:
            async with lock:
                await sim.seam("child")
        ended += 1

    async def supervise() -> None:
        for _ in range(3):
            try:
                with trio.fail_after(10):
                    await child()
            except Exception:  # noqa: BLE001 - whatever the child fails with
                await trio.sleep(1)
                continue
            return

    try:
        await supervise()
    finally:
        assert not lock.locked(), "the lock of a child that has ended is held"


@listed
async def pubsub(*, broken: bool) -> None:
    """Planted: a slow reader that leaves stays subscribed, and the publisher waits for it for ever."""
    subscribers: dict[trio.MemorySendChannel[int], float] = {}

    async def subscribe(delay: float, count: int) -> None:
        send, receive = trio.open_memory_channel[int](1)
        subscribers[send] = delay
        try:
            with trio.move_on_after(4):
                for _ in range(count):
                    await receive.receive()
                    await trio.sleep(delay)
        finally:
            if not broken:
                subscribers.pop(send, None)
                send.close()
                receive.close()
        if broken:
            await trio.lowlevel.checkpoint()
            subscribers.pop(send, None)
            send.close()
            receive.close()

    async def publish() -> None:
        for number in range(4):
            for subscriber in list(subscribers):
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    await subscriber.send(number)
            await trio.sleep(1)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscribe, 0.1, 2)
            nursery.start_soon(subscribe, 3, 2)
            await trio.sleep(0.5)
            await publish()
            nursery.cancel_scope.cancel()
    finally:
        assert not subscribers, "a reader that has left is subscribed"


@listed
async def heartbeat(*, broken: bool) -> None:
    """Planted: the heartbeat is a system task, which is stopped only where all goes well."""
    stopped = trio.CancelScope()

    async def beat() -> None:
        with stopped:
            while True:
                await trio.sleep(1)

    trio.lowlevel.spawn_system_task(beat)
    try:
        await trio.sleep(3)
    finally:
        if not broken:
            stopped.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(0.1)
    if broken:
        stopped.cancel()
        await trio.sleep(0.1)


# ----------------------------------------------------------------------------------------- files, threads, processes


@listed
async def atomic_file_writer(*, broken: bool) -> None:
    """Planted: a write that fails leaves the temporary file there."""
    with tempfile.TemporaryDirectory() as folder:
        target, part = trio.Path(folder, "state.json"), trio.Path(folder, "state.json.tmp")

        async def save(text: str) -> None:
            try:
                async with await trio.open_file(part, "w") as file:
                    await file.write(text)
                    await file.flush()
                await part.replace(target)
            except BaseException:
                if not broken:
                    with trio.CancelScope(shield=True):
                        await part.unlink(missing_ok=True)
                raise

        try:
            await save("{}")
        finally:
            with trio.CancelScope(shield=True):
                assert not await part.exists(), "the temporary file is left"


@listed
async def log_file(*, broken: bool) -> None:
    """Planted: the file stays open when its writer is cancelled."""
    with tempfile.TemporaryDirectory() as folder:
        file = await trio.open_file(trio.Path(folder, "log"), "w")
        if broken:
            await file.write("one\n")
            await file.aclose()
            return
        async with file:
            await file.write("one\n")


@listed
async def worker_threads(*, broken: bool) -> None:
    """Planted: the thread goes on after its user was cancelled, and takes effect."""
    is_over = False
    late: list[str] = []

    def work() -> None:
        time.sleep(2)
        if is_over:
            late.append("saved")

    try:
        with trio.move_on_after(5):
            await trio.to_thread.run_sync(work, abandon_on_cancel=broken)
    finally:
        is_over = True
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        assert not late, "the thread worked after the end"


class _Process:
    """A fake process, which has to be waited for."""

    def __init__(self) -> None:
        self.is_running = True
        self.is_reaped = False
        self._ended = trio.Event()

    def terminate(self) -> None:
        self.is_running = False
        self._ended.set()

    async def wait(self) -> None:
        await self._ended.wait()
        self.is_reaped = True


@listed
async def process_manager(*, broken: bool) -> None:
    """Planted: a process that is ended because of a cancel is not waited for."""
    process = _Process()

    async def run() -> None:
        try:
            await trio.sleep(2)
        finally:
            process.terminate()
            with trio.CancelScope(shield=not broken):
                await process.wait()  # noqa: ASYNC102

    try:
        await run()
    finally:
        assert process.is_reaped, "a zombie"


# -------------------------------------------------------------------------------------------------------- anyio


@listed
async def anyio_task_group(*, broken: bool) -> None:
    """Planted: the producer's stream is not closed when its task is cancelled, and the consumer waits for ever."""
    send, receive = anyio.create_memory_object_stream[int](0)

    async def produce() -> None:
        with anyio.move_on_after(5):
            for number in range(3):
                await send.send(number)
                await anyio.sleep(1)
            if broken:
                send.close()
        if not broken:
            send.close()

    async with send, receive, anyio.create_task_group() as group:
        group.start_soon(produce)
        async for _ in receive:
            pass


@listed
async def anyio_generator(*, broken: bool) -> None:
    """Planted: a generator of rows is left half-way, and not closed."""
    is_open = False

    async def rows() -> AsyncIterator[int]:
        nonlocal is_open
        is_open = True
        try:
            for row in range(3):
                await anyio.to_thread.run_sync(int)
                yield row
        finally:
            is_open = False

    generator = rows()
    try:
        async for row in generator:
            await anyio.sleep(1)
            if row == 2 and broken:
                continue
    finally:
        if not broken:
            with anyio.CancelScope(shield=True):
                await generator.aclose()  # type: ignore[attr-defined]
