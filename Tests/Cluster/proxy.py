"""A TCP proxy between workers and a gateway that misbehaves on request."""

import asyncio
import random
import threading


class Proxy:
    """Forwards connections to `target_port` on loopback. `mode` may be changed at any time:

    pass: as if it were not there; delay: every piece waits up to 0.3 s; corrupt: now and then one bit is flipped;
    hold: nothing gets through, though the connections stay; refuse: as hold, and new connections are closed at once.
    """

    def __init__(self, target_port, seed=0):
        self.target_port, self.mode, self.random = target_port, "pass", random.Random(seed)
        self.corrupted = 0
        self._links, self._loop = set(), asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(10)

    def cut(self):
        """Breaks every connection."""
        self._loop.call_soon_threadsafe(self._cut)

    def close(self):
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _end(self):
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, started):
        asyncio.set_event_loop(self._loop)

        async def serve():
            server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            started.set()

        self._loop.run_until_complete(serve())
        self._loop.run_forever()

    def _cut(self):
        for writer in list(self._links):
            writer.transport.abort()

    async def _accept(self, reader, writer):
        if self.mode == "refuse":
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.transport.abort()
            return
        self._links |= {writer, far_writer}
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except asyncio.CancelledError:
            pass
        self._links -= {writer, far_writer}

    async def _pump(self, reader, writer):
        try:
            while data := await reader.read(1 << 16):
                while self.mode in ("hold", "refuse"):
                    await asyncio.sleep(0.02)
                if self.mode == "delay":
                    await asyncio.sleep(self.random.random() * 0.3)
                if self.mode == "corrupt" and self.random.random() < 0.3:
                    data = bytearray(data)
                    data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
                    self.corrupted += 1
                writer.write(data)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
