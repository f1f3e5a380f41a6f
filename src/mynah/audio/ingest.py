"""Up-link audio of all sessions: one ring, one worker thread, one batched VAD call.

(contract; implementation follows)
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class VadEngine(Protocol):
    """Voice probabilities for many streams at once. All calls come from the ingest worker thread.

    A stream is a slot: a row in the engine's state arrays, taken while a device listens and returned afterwards.
    """

    chunk_samples: int
    """Samples per decision at 16 kHz (512 = 32 ms)."""

    def open(self) -> int:
        """Take a slot with a fresh state."""

    def close(self, slot: int) -> None:
        """Return a slot."""

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the speech probability of each row of ``chunks`` (n × chunk_samples, −1…1). No slot occurs twice in a call."""


class IngestSink(Protocol):
    """Who receives decoded audio; called on the event loop."""

    def on_pcm(self, pcm: bytes, probabilities: tuple[float, ...]) -> None:
        """Next stretch of 16 kHz s16le PCM and the VAD decisions that completed in it, in order."""

    def on_flushed(self, token: Any) -> None:
        """All audio pushed before `IngestStream.flush(token)` has been delivered."""
