"""A TCP link on loopback that can be cut, made to swallow bytes, to delay them, or to damage them."""

import random
import select
import socket
import threading
import time


class FaultyLink:
    """Forwards connections to `target_port`; what happens to the bytes is set by the methods, at any time."""

    def __init__(self, target_port, seed=0):
        self.target_port, self.random = target_port, random.Random(seed)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.lock, self.pairs = threading.Lock(), set()
        self.holding = self.refusing = False
        self.delay_seconds, self.damages = 0.0, 0
        self.damaged = self.closed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self.listener.close()
        self.cut()

    # Faults

    def cut(self, refuse_seconds=0.0):
        """Closes all connections, with a reset, and refuses new ones for a while."""
        self.refusing = refuse_seconds > 0
        with self.lock:
            pairs, self.pairs = list(self.pairs), set()
        for pair in pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.close()
        self.closed += len(pairs)
        if refuse_seconds:
            threading.Timer(refuse_seconds, self._accept_again).start()

    def hold(self, seconds):
        """A partition: connections stay, nothing passes, in either direction; afterwards what was sent arrives."""
        self.holding = True
        threading.Timer(seconds, self._release).start()

    def damage(self, count=1):
        """Flips a bit in each of the next `count` chunks."""
        self.damages += count

    def _accept_again(self):
        self.refusing = False

    def _release(self):
        self.holding = False

    # Forwarding

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                if self.refusing:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:
                near.close()
                continue
            with self.lock:
                self.pairs.add((near, far))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near, far):
        try:
            while True:
                if self.holding:
                    time.sleep(0.01)
                    continue
                readable, _, _ = select.select([near, far], [], [], 0.05)
                for source in readable:
                    data = source.recv(65536)
                    if not data:
                        return
                    if self.delay_seconds:
                        time.sleep(self.delay_seconds)
                    (far if source is near else near).sendall(self._damaged(data))
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.pairs.discard((near, far))
            near.close()
            far.close()

    def _damaged(self, data):
        # Not the handshake: its failure is a failure to connect, which cut() is for.
        if self.damages <= 0 or len(data) < 200:
            return data
        self.damages -= 1
        self.damaged += 1
        place = self.random.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << self.random.randrange(8)]) + data[place + 1:]
