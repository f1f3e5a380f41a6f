"""Opus through libopus: one thin ctypes layer with preallocated buffers.

This halves the cost of decoding against PyAV and opuslib, and ``ctypes.CDLL`` releases the GIL during every
call, so a worker thread really works beside the event loop. The system's libopus is used where there is one,
otherwise the copy inside the PyAV wheel: nothing has to be installed.

Codec objects keep their state in a buffer of their own (``opus_*_init`` in place), so they need no
destructor. An object must not be used by two threads at once; different objects may.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from mynah.errors import AudioError

LEGAL_RATES: Final = (8000, 12000, 16000, 24000, 48000)
"""Sample rates in Hz that libopus accepts."""
LEGAL_FRAME_MS: Final = (5, 10, 20, 40, 60, 80, 100, 120)
"""Frame lengths that libopus encodes and devices can be told of (they do not know 2.5 ms)."""
MAX_PACKET_MS: Final = 120
"""Longest audio one packet may carry, by RFC 6716; sizes the decoder's buffer."""
MAX_PACKET_BYTES: Final = 4000
"""Encoder's output buffer, the size libopus recommends; 60 ms at its highest bitrate fit."""

_SET_BITRATE, _SET_COMPLEXITY, _SET_DTX, _RESET_STATE = 4002, 4010, 4016, 4028
_BITRATE_AUTO = -1000


class Application(enum.StrEnum):
    """What the encoder optimises for."""

    AUDIO = "audio"
    VOIP = "voip"
    LOW_DELAY = "lowdelay"


class Effort(enum.IntEnum):
    """How hard an encoder tries: the libopus complexities that pay at `SPEECH_BITRATE`.

    1 to 4 cost more than 0 and sound no better; 5 costs 2.7 times as much and is up to a decibel better; from 7 on
    libopus turns to its speech coder, which costs twelve times as much. ``benchmarks/opus.json`` has the figures.
    """

    LIGHT = 0
    FULL = 5


SPEECH_BITRATE: Final = 32_000
"""Bit/s for spoken answers. At this rate libopus chooses its transform coder: 45 µs per 60 ms with `Effort.LIGHT`,
where the speech coder, which it takes at its own 15 kbit/s, needs 340 µs for less by both measures of the sound."""


_APPLICATIONS: Final = {Application.VOIP: 2048, Application.AUDIO: 2049, Application.LOW_DELAY: 2051}


class OpusLibrary:
    """A loaded libopus with typed entry points. Use `default_library` unless a test wants a certain file."""

    def __init__(self, path: str) -> None:
        """Load the shared library ``path`` (a file or a soname). Raises AudioError."""
        self.path = path
        try:
            lib = ctypes.CDLL(path)  # CDLL, not PyDLL: the GIL is released during calls
            holding = ctypes.PyDLL(path)
        except OSError as error:
            raise AudioError(f"cannot load libopus from {path}: {error}") from error
        c_int, c_state = ctypes.c_int, ctypes.c_void_p
        self.strerror = _entry(lib, "opus_strerror", ctypes.c_char_p, c_int)
        self.version = _entry(lib, "opus_get_version_string", ctypes.c_char_p)
        self.decoder_size = _entry(lib, "opus_decoder_get_size", c_int, c_int)
        self.decoder_init = _entry(lib, "opus_decoder_init", c_int, c_state, ctypes.c_int32, c_int)
        self.decode = _entry(
            lib, "opus_decode", c_int, c_state, ctypes.c_char_p, ctypes.c_int32, c_state, c_int, c_int
        )
        self.encoder_size = _entry(lib, "opus_encoder_get_size", c_int, c_int)
        self.encoder_init = _entry(lib, "opus_encoder_init", c_int, c_state, ctypes.c_int32, c_int, c_int)
        self.encode = _entry(
            lib, "opus_encode", ctypes.c_int32, c_state, ctypes.c_char_p, c_int, c_state, ctypes.c_int32
        )
        self.encode_holding = _entry(
            holding, "opus_encode", ctypes.c_int32, c_state, ctypes.c_char_p, c_int, c_state, ctypes.c_int32
        )
        """The same without releasing the GIL."""
        # The _ctl functions are variadic: declaring only the fixed arguments tells ctypes so.
        self.decoder_ctl = _entry(lib, "opus_decoder_ctl", c_int, c_state, c_int)
        self.encoder_ctl = _entry(lib, "opus_encoder_ctl", c_int, c_state, c_int)

    def check(self, result: int, doing: str) -> int:
        """Return ``result`` unless it is a libopus error code. Raises AudioError."""
        if result < 0:
            raise AudioError(f"{doing}: {self.strerror(result).decode()} (libopus error {result})")
        return result


def _entry(lib: ctypes.CDLL | ctypes.PyDLL, name: str, restype: Any, *argtypes: Any) -> Any:
    try:
        function = getattr(lib, name)
    except AttributeError as error:
        raise AudioError(f"{lib._name} is not libopus: it has no {name}") from error
    function.restype, function.argtypes = restype, list(argtypes)
    return function


def library_candidates() -> Iterator[str]:
    """Where libopus may be, best first: the system's, then the one inside the PyAV wheel.

    At `SPEECH_BITRATE` the system's 1.3.1 is cheaper than the wheel's 1.6.1 (45 to 54 µs) and sounds a little better,
    and it gets its security updates by itself. The wheel's is the cheaper speech coder, which is not used.

    The soname is tried directly: ``ctypes.util.find_library`` would start a process to find the same.
    """
    yield "libopus.0.dylib" if sys.platform == "darwin" else "libopus.so.0"
    spec = importlib.util.find_spec("av")  # finds the package without importing its 60 MB
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        for folder in (package.parent / "av.libs", package / ".dylibs"):
            yield from map(str, sorted(folder.glob("libopus*")))


@functools.cache
def default_library() -> OpusLibrary:
    """Return the first libopus that loads. Raises AudioError naming every place that was tried."""
    tried: list[str] = []
    for path in library_candidates():
        try:
            return OpusLibrary(path)
        except AudioError as error:
            tried.append(str(error))
    raise AudioError("no libopus found; install the package libopus0 or the PyAV wheel. " + "; ".join(tried))


def library_path() -> str:
    """Return the libopus in use: a soname the system resolves, or a file."""
    return default_library().path


class OpusDecoder:
    """Decodes one stream to mono PCM; keeps the stream's state between packets."""

    def __init__(self, sample_rate: int = 16000, *, library: OpusLibrary | None = None) -> None:
        """``sample_rate`` in Hz is that of the PCM wanted; it need not be the sender's. Raises AudioError."""
        _check_rate(sample_rate)
        self.sample_rate = sample_rate
        self._lib = library or default_library()
        self._state = ctypes.create_string_buffer(self._lib.decoder_size(1))
        self._lib.check(self._lib.decoder_init(self._state, sample_rate, 1), "opus decoder")
        self._max_samples = sample_rate * MAX_PACKET_MS // 1000
        self._out = ctypes.create_string_buffer(self._max_samples * 2)
        self._pcm = memoryview(self._out)

    def decode(self, packet: bytes) -> bytes:
        """Return the packet's audio as s16le mono; its length follows from the packet, 2.5 to 120 ms.

        Packets of 1 to 3 bytes are what a sender's DTX makes of silence: they decode to comfort noise.
        Raises AudioError when the packet is not Opus; the decoder stays usable.
        """
        if not packet:  # libopus would take it for a lost packet and conceal
            raise AudioError("opus decode: empty packet")
        samples = self._lib.decode(self._state, packet, len(packet), self._out, self._max_samples, 0)
        if samples < 0:
            self._lib.check(samples, "opus decode")
        return bytes(self._pcm[: samples * 2])

    def reset(self) -> None:
        """Forget the stream, as if just made."""
        self._lib.check(self._lib.decoder_ctl(self._state, _RESET_STATE), "opus decoder reset")


class OpusEncoder:
    """Encodes one stream of mono PCM, one frame of a fixed length per call."""

    def __init__(
        self,
        sample_rate: int,
        frame_ms: int = 60,
        complexity: int = 5,
        bitrate: int | None = None,
        application: Application = Application.AUDIO,
        dtx: bool = False,
        *,
        library: OpusLibrary | None = None,
    ) -> None:
        """``complexity`` is 0 (cheap) to 10 (best), ``bitrate`` in bit/s or None for libopus' choice.

        Raises AudioError for a rate, length or setting that Opus does not have.
        """
        _check_rate(sample_rate)
        if frame_ms not in LEGAL_FRAME_MS:
            raise AudioError(f"opus frames may last {LEGAL_FRAME_MS} ms, not {frame_ms}")
        self.sample_rate, self.frame_ms, self.complexity = sample_rate, frame_ms, complexity
        self.frame_samples = sample_rate * frame_ms // 1000
        self.frame_bytes = self.frame_samples * 2
        self._lib = lib = library or default_library()
        self._state = ctypes.create_string_buffer(lib.encoder_size(1))
        mode = _APPLICATIONS[Application(application)]
        lib.check(lib.encoder_init(self._state, sample_rate, 1, mode), "opus encoder")
        settings = (
            (_SET_COMPLEXITY, complexity),
            (_SET_BITRATE, _BITRATE_AUTO if bitrate is None else bitrate),
            (_SET_DTX, int(dtx)),
        )
        for request, value in settings:
            lib.check(lib.encoder_ctl(self._state, request, ctypes.c_int32(value)), f"opus setting {value}")
        self._out = ctypes.create_string_buffer(MAX_PACKET_BYTES)
        self._packet = memoryview(self._out)

    def encode(self, pcm: bytes, *, hold_gil: bool = False) -> bytes:
        """Encode exactly one frame (``frame_bytes`` of s16le). Raises AudioError on any other length.

        ``hold_gil``: stop all other Python threads meanwhile. To get it back takes longer than a frame when they are
        busy, so who has many frames to encode and little time may do that for some of them.
        """
        if len(pcm) != self.frame_bytes:
            raise AudioError(f"opus encode: {len(pcm)} bytes given, one frame has {self.frame_bytes}")
        encode = self._lib.encode_holding if hold_gil else self._lib.encode
        size = encode(self._state, pcm, self.frame_samples, self._out, MAX_PACKET_BYTES)
        if size < 0:
            self._lib.check(size, "opus encode")
        return bytes(self._packet[:size])

    def tune(self, complexity: int) -> None:
        """Change the complexity, between two frames of a stream as well: it cannot be heard. Raises AudioError."""
        if complexity != self.complexity:
            result = self._lib.encoder_ctl(self._state, _SET_COMPLEXITY, ctypes.c_int32(complexity))
            self._lib.check(result, f"opus complexity {complexity}")
            self.complexity = complexity

    def reset(self) -> None:
        """Forget the stream, as if just made; the settings stay."""
        self._lib.check(self._lib.encoder_ctl(self._state, _RESET_STATE), "opus encoder reset")


def _check_rate(sample_rate: int) -> None:
    if sample_rate not in LEGAL_RATES:
        raise AudioError(f"opus sample rates are {LEGAL_RATES} Hz, not {sample_rate}")


def _frame_ms(config: int) -> float:
    """Length of one frame by the TOC's upper five bits (RFC 6716, table 2)."""
    if config < 12:  # SILK
        return (10.0, 20.0, 40.0, 60.0)[config & 3]
    if config < 16:  # hybrid
        return (10.0, 20.0)[config & 1]
    return (2.5, 5.0, 10.0, 20.0)[config & 3]  # CELT


def packet_duration_ms(packet: bytes) -> float:
    """Return how much audio a packet holds, in ms, read from its first two bytes. Raises AudioError."""
    if not packet:
        raise AudioError("opus: empty packet")
    toc = packet[0]
    code = toc & 3
    if code == 3:
        if len(packet) < 2 or not packet[1] & 0x3F:
            raise AudioError("opus: packet announces no frame")
        count = packet[1] & 0x3F
    else:
        count = (1, 2, 2)[code]
    duration = count * _frame_ms(toc >> 3)
    if duration > MAX_PACKET_MS:
        raise AudioError(f"opus: packet of {duration:g} ms, {MAX_PACKET_MS} is the longest")
    return duration
