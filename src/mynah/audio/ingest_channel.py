"""The ingest process as the server sees it: a child with a socket, read and written without blocking."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Final

from mynah.audio.ingest_wire import Frames
from mynah.errors import AudioError

READ_BYTES: Final = 65_536
"""Read in one turn of the event loop. More would come from a block of memory that is mapped and unmapped each time."""


class Channel:
    """One process and the socket to it. All calls from the event loop, none blocks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_frame: Callable[[bytes], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """``on_frame`` gets the body of each frame, ``on_lost`` once why there will be none any more."""
        self._loop, self._on_frame, self._on_lost = loop, on_frame, on_lost
        self._frames = Frames()
        self._process: subprocess.Popen[bytes] | None = None
        self._unsent = b""  # the rest of one frame; nobody sends another one meanwhile
        self._closed = self._begun = False
        self._lock = threading.Lock()  # over these and `_process`, while the process starts on a thread
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        loop.add_reader(self._near, self.read)

    @property
    def pid(self) -> int | None:
        """Process id, once there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def blocked(self) -> bool:
        """Whether a part of the last frame still waits for room in the socket."""
        return bool(self._unsent)

    async def start(self) -> None:
        """Start the process. Raises OSError."""
        await asyncio.to_thread(self._start)

    def _start(self) -> None:
        if not self._begin():
            return
        with self._far:
            process = self._spawn()
        if not self._keep(process):
            process.wait()  # it ends by itself when it finds its socket closed

    def _begin(self) -> bool:
        with self._lock:
            self._begun = not self._closed
            return self._begun

    def _keep(self, process: subprocess.Popen[bytes]) -> bool:
        with self._lock:
            if not self._closed:
                self._process = process
            return not self._closed

    def _spawn(self) -> subprocess.Popen[bytes]:
        # -P: the folder that the server was started in is none to load modules from.
        # Neither the many sockets of the server are gone through (Python's are not inherited) nor is its memory copied.
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "mynah.audio.ingest_process"],
            stdin=self._far.fileno(),
            stdout=subprocess.DEVNULL,
            close_fds=False,
            # Ctrl-C must not reach it before it has learnt to ignore it.
            start_new_session=True,
            # One thread of algebra, as in the server: a batch takes less than a millisecond, and nobody waits for it.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def send(self, data: bytes) -> None:
        """Send one frame; only while not `blocked`."""
        assert not self._unsent
        self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            sent = self._near.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            # Not at once: who sends is in the middle of something.
            self._loop.call_soon(self._lose, f"cannot write to it: {error}")
            return
        waiting, self._unsent = bool(self._unsent), data[sent:]
        if self._unsent and not waiting:
            self._loop.add_writer(self._near, self._write_on)
        elif waiting and not self._unsent:
            self._loop.remove_writer(self._near)

    def _write_on(self) -> None:
        self._write(self._unsent)

    def read(self) -> None:
        """Take what has arrived."""
        if self._closed:
            return
        try:
            data = self._near.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(f"cannot read from it: {error}")
            return
        if not data:
            self._lose("it has ended")
            return
        try:
            for body in self._frames.feed(data):
                if not self._closed:
                    self._on_frame(body)
        except AudioError as error:
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._on_lost(reason)

    def close(self, *, wait: bool = False) -> None:
        """End the process: it keeps nothing. ``wait`` until it is gone, some ms. Safe more than once."""
        with self._lock:
            closed, self._closed = self._closed, True
            process, self._process = self._process, None
            if not self._begun:
                self._far.close()
        if not closed:
            self._loop.remove_reader(self._near)
            self._loop.remove_writer(self._near)
            self._near.close()
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        if wait:
            process.wait()
        else:
            self._loop.run_in_executor(None, process.wait)
