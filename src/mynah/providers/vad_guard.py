"""The wall around voice detectors: whatever one raises, the ingest worker that serves all devices lives on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mynah.audio.ingest import VadEngine
from mynah.errors import ProviderError, ProviderProtocolError
from mynah.providers.wrap import provider_errors

REPORT_PAUSE_S = 60.0
"""A detector decides 30 times a second for each device; one that fails is reported once a minute."""


class GuardedVadEngine:
    """A voice detector that raises ProviderError only and returns what it should.

    All calls come from the ingest worker's thread, and so do those of ``report``: it gets what went wrong, at most
    every `REPORT_PAUSE_S`, because those who use the detector cannot tell the operator.
    """

    def __init__(self, inner: VadEngine, name: str, report: Callable[[ProviderError], None]) -> None:
        """``name`` is the configured entry's. Raises ProviderError."""
        self._inner, self._name, self._report = inner, name, report
        self._reported_at = float("-inf")
        with provider_errors(name):
            self.chunk_samples = inner.chunk_samples
            self.sequences = bool(getattr(inner, "sequences", False))

    def open(self) -> int:
        """Take a slot. Raises ProviderError."""
        with self._guarded():
            return self._inner.open()

    def close(self, slot: int) -> None:
        """Return a slot. An error while doing so is reported only: nobody uses the slot any more."""
        with contextlib.suppress(ProviderError), self._guarded():
            self._inner.close(slot)

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a probability per row. Raises ProviderError, also for a result that is something else."""
        with self._guarded():
            result = np.asarray(self._inner.process(slots, chunks), np.float32)
            if result.shape != (len(slots),) or not np.isfinite(result).all():
                message = f"{len(slots)} finite probabilities expected, got an array of shape {result.shape}"
                raise ProviderProtocolError(message, provider=self._name)
            return result

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with provider_errors(self._name):
                yield
        except ProviderError as error:
            now = time.monotonic()
            if now - self._reported_at >= REPORT_PAUSE_S:
                self._reported_at = now
                self._report(error)
            raise
