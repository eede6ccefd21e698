"""From the socket to the last answer: start, signals, stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from gpt_neox_japanese.errors import ArgumentError
from gpt_neox_japanese.server.app import make_app
from gpt_neox_japanese.server.connection import Connection
from gpt_neox_japanese.server.service import ServedModel, Service
from gpt_neox_japanese.server.settings import ServerSettings

__all__ = ["run_server"]

_BACKLOG = 2048
_SIGNALS = ("SIGINT", "SIGTERM")
_SECONDS_FOR_LAST_BYTES = 2  # when everything has been written
_SECONDS_FOR_LAST_STEP = 2.0  # of the engine


def run_server(
    settings: ServerSettings,
    load: Callable[[], ServedModel],
    announce: Callable[[str], object] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    The socket is open at once; while the model is being loaded, every request but `/health` is told
    so. At the first signal nothing more is taken, and what is being written has a few seconds; at
    the second one it is ended at once.

    Args:
        settings: Where, and how much.
        load: Opens the model; called in another thread.
        announce: Called with the server's address when it is ready.

    Raises:
        ArgumentError: The host cannot be listened at, or the port is taken.
        CheckpointError: The model cannot be loaded; or whatever else `load` raises.
    """
    listeners = _listen(settings.host, settings.port)
    asyncio.run(_serve(settings, listeners, load, announce))


async def _serve(
    settings: ServerSettings,
    listeners: list[socket.socket],
    load: Callable[[], ServedModel],
    announce: Callable[[str], object],
) -> None:
    service = Service(settings)
    server = _Server(
        uvicorn.Config(
            make_app(service),
            lifespan="off",
            http=partial(Connection, write_timeout=settings.write_timeout),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_SECONDS_FOR_LAST_BYTES,
        )
    )
    stop = _stop_signals()
    serving = asyncio.create_task(server.serve(sockets=listeners))
    loading = asyncio.ensure_future(_in_thread(load))
    stopping = asyncio.create_task(stop.get())
    try:
        await asyncio.wait((loading, stopping, serving), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            service.open(loading.result())
            announce(_address(settings.host, listeners[0]))
        await asyncio.wait((stopping, serving), return_when=asyncio.FIRST_COMPLETED)
        await _finish(service, stop)
    finally:
        service.stop()
        service.abort()
        server.should_exit = True
        for task in (loading, stopping):
            task.cancel()
        await serving
        if service.is_open:
            with contextlib.suppress(TimeoutError):
                close = service.close
                await asyncio.wait_for(_in_thread(close), _SECONDS_FOR_LAST_STEP)


async def _finish(service: Service, stop: asyncio.Queue[None]) -> None:
    """Let what is being written come to its end, but not for long; a second signal ends it."""
    service.stop()
    again = asyncio.create_task(stop.get())
    deadline = asyncio.get_running_loop().time() + service.settings.shutdown_grace
    while not (service.is_idle or again.done()):
        if asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.05)
    again.cancel()
    service.abort()
    await asyncio.sleep(0.05)  # in which whoever waited is told


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn raises them again after a clean stop, which then is none."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of a host: clients of localhost may try 127.0.0.1 or ::1 first.

    An address that this machine does not have is left out if there is another. `::` is everywhere,
    as 0.0.0.0 is: IPv4's addresses, too.
    """
    everywhere = host == "::" and socket.has_dualstack_ipv6()
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        missing: OSError | None = None
        with contextlib.ExitStack() as opened:
            listeners: list[socket.socket] = []
            for family, _, _, _, (name, _, *rest) in dict.fromkeys(found):
                if listeners:  # where the first may have been given any free port
                    port = listeners[0].getsockname()[1]
                address = (name, port, *rest)
                try:
                    listener = socket.create_server(
                        address, family=family, backlog=_BACKLOG, dualstack_ipv6=everywhere
                    )
                except OSError as error:
                    if error.errno == errno.EADDRINUSE:  # by a server that clients may mean
                        raise
                    missing = error
                else:
                    listeners.append(opened.enter_context(listener))
            if missing is not None and not listeners:
                raise missing
            opened.pop_all()
            return listeners
    except (OSError, ValueError) as error:  # the latter: no host can have this name
        raise ArgumentError(
            f"the server cannot listen at {host!r}, port {port}:"
            f" {getattr(error, 'strerror', None) or error}; choose another --host or --port"
        ) from error


def _address(host: str, listener: socket.socket) -> str:
    """The address of the page, for a browser on this machine."""
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _stop_signals() -> asyncio.Queue[None]:
    """A queue in which every SIGINT and SIGTERM arrives."""
    stop: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for name in _SIGNALS:
        number = getattr(signal, name)
        try:
            loop.add_signal_handler(number, stop.put_nowait, None)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.put_nowait, None))
    return stop


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Call `work` in a thread that the end of the program does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()

    def finish(result: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
            loop.call_soon_threadsafe(finish, result, failure)

    threading.Thread(target=run, name="neox-ja", daemon=True).start()
    return await done
