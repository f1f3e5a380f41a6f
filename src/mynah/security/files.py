"""Small files that must survive a crash: replaced as a whole, written on a thread of their own."""

from __future__ import annotations

import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loguru import logger

_log = logger.bind(tag="files")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one; only its owner may read it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else a power cut may bring the old file back
    finally:
        os.close(folder)


class LatestFile:
    """A file that holds the latest of many states. Of several that wait to be written, only the last one is."""

    def __init__(self, path: Path, loss: str) -> None:
        """``loss`` says what is lost when it cannot be written."""
        self.path = path
        self._loss = loss
        self._writer = ThreadPoolExecutor(1, path.stem)
        self._lock = threading.Lock()
        self._latest: bytes | None = None
        for draft in path.parent.glob(f".{path.name}.*"):
            draft.unlink(missing_ok=True)  # of a server that was killed while it wrote

    def save(self, content: bytes) -> None:
        """Write on a thread of its own."""
        with self._lock:
            idle, self._latest = self._latest is None, content
        if idle:
            self._writer.submit(self._write_latest)

    def close(self) -> None:
        """Wait until all is written."""
        self._writer.shutdown(wait=True)

    def _write_latest(self) -> None:
        with self._lock:
            content, self._latest = self._latest, None
        assert content is not None
        try:
            replace_file(self.path, content)
        except OSError as error:
            _log.error("{} cannot be written ({}): {}", self.path, error.strerror, self._loss)
