"""What a device was given to play, and which part of it is in a frame of its microphone.

A device that leaves echo cancelling to the server returns the stamp of each packet with the first frame it records
after the packet was played. The packets are kept on one line, in the order they were sent, and a cursor says where
the echo in the next frame begins. Three things make this less simple than it sounds:

* A stamp is only a hint. It says that its packet is over, but not for how long: a frame can be late by up to three
  packets, and the sound chip plays what was written to it with a delay. So the cursor runs `ADVANCE_MS` ahead of the
  stamp: a canceller copes with an echo that comes too late, but never with one that comes before its reference.
* The first packets of a reply are heard before the first stamp comes back. They are read as soon as they have been
  sent, after a pause whose length is learned from the replies before.
* Stamp 0 says nothing about time. Firmware sends it when its own queue of stamps has run full, which lasts as long as
  the reply does. So the cursor goes on at the pace of the frames until it has passed everything that was sent; from
  there on the reference is silence.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mynah.audio.opus import OpusDecoder
from mynah.errors import AudioError

Samples = NDArray[np.int16]
"""Mono PCM at 16 kHz."""

SAMPLE_RATE: Final = 16000

MAX_REFERENCES: Final = 100
"""Packets that are kept: 6 s of the 60 ms packets that devices are sent. Firmware holds at most 2.6 s of them, and a
frame's way back takes less than a second. Policy: the oldest is dropped; it was played long ago, or never will be."""

ADVANCE_MS: Final = 120
"""How far the reference runs ahead of the stamp: two packets, and a server that sends three ahead has sent them."""

_FIRST_WAIT_MS: Final = 0
"""Pause between the first packet of the first reply and its echo, before anything was learned."""
_MAX_WAIT_MS: Final = 400
_SHORT_MS: Final = 60
"""Less than this without a packet is the network's unevenness, which the device's buffer hides. And a cursor that began
this much too early or too late stays so until the next pause: to move it would disturb a canceller more."""
_LEAD_MS: Final = 180
"""Audio that is on its way to the device while it plays."""
_MAX_BEHIND_MS: Final = 3000
"""Without any stamp, a cursor this far behind what was sent has lost its place."""

_PER_MS: Final = SAMPLE_RATE // 1000


class References:
    """The packets sent to one device. `sent` is for the event loop, everything else for one worker thread."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, bytes]] = deque(maxlen=MAX_REFERENCES)  # append and popleft are atomic
        # From here on the worker's own.
        self._decoder: OpusDecoder | None = None
        self._pieces: deque[tuple[int, int, Samples]] = deque()  # stamp, position of the end, audio
        self._ends: dict[int, int] = {}  # by stamp
        self._end = 0  # of everything decoded, in samples
        self._at = 0  # the cursor: where the echo in the next frame begins
        self._wait = _FIRST_WAIT_MS * _PER_MS  # samples of silence before what follows a pause
        self._hold = 0  # what is left of that
        self._dry = SAMPLE_RATE  # samples of silence since everything sent was passed
        self._starting = False  # no stamp since the last pause
        self._bias = 0  # how late the cursor was at the first stamp, and has been since
        self._shifted = False
        self._seen = 0  # end of the newest packet whose stamp has come back

    def sent(self, stamp: int, packet: bytes) -> None:
        """Keep a packet that the device is sent under ``stamp``, which is not 0."""
        self._sent.append((stamp, packet))

    def catch_up(self) -> None:
        """The microphone was closed: skip what was played meanwhile."""
        self._decode()
        self._at = max(self._at, self._end - _LEAD_MS * _PER_MS)
        self._hold, self._shifted = 0, True

    def forget(self) -> None:
        """The microphone is closed: keep only what may be asked for when it opens again at once."""
        self._decoder = None
        while self._pieces and self._pieces[0][1] < self._at - _LEAD_MS * _PER_MS:
            self._drop()

    def shifted(self) -> bool:
        """Whether the time between reference and echo may be another one since this was asked last."""
        shifted, self._shifted = self._shifted, False
        return shifted

    def far(self, samples: int, stamp: int) -> Samples:
        """Return the reference for the next ``samples`` of the microphone, in a frame with this stamp."""
        self._decode()
        self._align(samples, stamp)
        return self._read(samples)

    def _decode(self) -> None:
        if not self._sent:
            return
        if self._at == self._end and self._dry > _SHORT_MS * _PER_MS:
            self._starting, self._hold, self._shifted = True, self._wait, True
        self._dry = 0
        if self._decoder is None:
            self._decoder = OpusDecoder(SAMPLE_RATE)
        for _ in range(len(self._sent)):
            stamp, packet = self._sent.popleft()
            try:
                audio = np.frombuffer(self._decoder.decode(packet), np.int16)
            except AudioError:  # the device can play it no better
                continue
            self._end += len(audio)
            self._pieces.append((stamp, self._end, audio))
            self._ends[stamp] = self._end
            if len(self._pieces) > MAX_REFERENCES:
                self._drop()

    def _drop(self) -> None:
        stamp, end, _ = self._pieces.popleft()
        if self._ends.get(stamp) == end:
            del self._ends[stamp]
        self._at = max(self._at, end)

    def _align(self, samples: int, stamp: int) -> None:
        end = self._ends.get(stamp, 0) if stamp else 0
        if end > self._seen:  # a stamp that is unknown, or comes again, or after a later one, says nothing
            self._seen = end
            begin = end + ADVANCE_MS * _PER_MS - samples
            late = begin - (self._at - self._hold)
            if self._starting:
                self._wait = min(max(self._wait - late, 0), _MAX_WAIT_MS * _PER_MS)
                self._bias = late if abs(late) <= _SHORT_MS * _PER_MS else 0
            late -= self._bias
            # Within one frame it is the same place: a stamp comes with the first frame after its packet.
            if abs(late) >= samples:
                self._at, self._hold = min(begin - self._bias, self._end), 0
                # The cursor that was behind has missed frames of the microphone, and they took their echo with them.
                self._shifted |= late < 0 or self._starting
            self._starting = False
        elif self._end - self._at > _MAX_BEHIND_MS * _PER_MS:
            self._at, self._hold, self._shifted = self._end - _LEAD_MS * _PER_MS, 0, True

    def _read(self, samples: int) -> Samples:
        out = np.zeros(samples, np.int16)
        filled = min(self._hold, samples)
        self._hold -= filled
        for _, end, audio in self._pieces:
            if end <= self._at:
                continue
            if filled == samples:
                break
            first = len(audio) - (end - self._at)
            piece = audio[first : first + samples - filled]
            out[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._at += len(piece)
        if self._at == self._end:
            self._dry += samples - filled
        return out
