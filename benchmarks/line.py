"""A line that takes its time: a proxy for TCP, for not every kernel has netem."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress

CHUNK = 65_536


@contextmanager
def slow_line(host: str, port: int, *, here: str, way: float) -> Iterator[int]:
    """The port on `here`, of this machine's loopback, that leads there; each way takes `way` seconds, to connect a round trip."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(asyncio.CancelledError):  # Python 3.11 reports a cancelled one as a failure
            await asyncio.sleep(2 * way)
            there, back = await asyncio.open_connection(host, port)
            with closing(back):
                await asyncio.gather(_carry(reader, back, way), _carry(there, writer, way), return_exceptions=True)

    ready: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve() -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(connected, here, 0)
        ready.set_result((server.sockets[0].getsockname()[1], lambda: loop.call_soon_threadsafe(stopped.set)))
        await stopped.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    listening, stop = ready.result(timeout=10)
    try:
        yield listening
    finally:
        stop()
        thread.join()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: float) -> None:
    """Write what comes, as late as `way` says, however much is under way."""
    clock = asyncio.get_running_loop().time
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - clock())
            if not data:
                writer.write_eof()
                return
            writer.write(data)

    delivery = asyncio.create_task(deliver())
    data = b"-"
    try:
        while data:
            data = await reader.read(CHUNK)
            await under_way.put((clock() + way, data))
        await delivery
    finally:
        delivery.cancel()  # where the connection was reset
