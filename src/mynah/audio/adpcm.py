"""IMA ADPCM: 4 bits for a sample of 16, a quarter of the bytes of PCM, at a quality that recognisers do not mind.

The first sample of a byte is in its high half. Predictor and step index are 0 at the beginning and run on to the end:
pieces may be cut anywhere.
"""

from __future__ import annotations

import sys
import warnings
from typing import Final

with warnings.catch_warnings():
    # Deprecated in Python 3.11 and 3.12; from 3.13 on it is a package of its own.
    warnings.simplefilter("ignore", DeprecationWarning)
    import audioop

_WIDTH: Final = 2
"""Bytes of a sample of PCM."""
_PAIR: Final = 2 * _WIDTH
"""Bytes of PCM that one byte of ADPCM holds."""


class AdpcmDecoder:
    """Decodes one stream."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state: tuple[int, int] | None = None

    def decode(self, data: bytes) -> bytes:
        """Return the next PCM: signed 16-bit little-endian mono, four bytes for each one of ``data``."""
        pcm, self._state = audioop.adpcm2lin(data, _WIDTH, self._state)
        return _little(pcm)


class AdpcmEncoder:
    """Encodes one stream."""

    __slots__ = ("_rest", "_state")

    def __init__(self) -> None:
        self._state: tuple[int, int] | None = None
        self._rest = b""  # less than two samples

    def encode(self, pcm: bytes) -> bytes:
        """Return the bytes that ``pcm`` (signed 16-bit little-endian mono, any length) completes: one for two samples.

        What is left over, a sample or a part of one, is kept for the next call.
        """
        pcm = self._rest + pcm if self._rest else pcm
        whole = len(pcm) // _PAIR * _PAIR
        self._rest = bytes(pcm[whole:])
        data, self._state = audioop.lin2adpcm(_little(pcm[:whole]), _WIDTH, self._state)
        return data

    def flush(self) -> bytes:
        """Return the byte of the sample that still waits, filled up with the same sample; half a sample is dropped."""
        sample = self._rest[:_WIDTH] if len(self._rest) >= _WIDTH else b""
        self._rest = b""
        return self.encode(sample * 2)


def _little(pcm: bytes) -> bytes:
    """Swap the bytes of PCM on machines whose own order is the other one."""
    return pcm if sys.byteorder == "little" else audioop.byteswap(pcm, _WIDTH)
