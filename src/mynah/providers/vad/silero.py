"""Silero VAD (16 kHz, version 6) in numpy, one pass for all streams.

Run stream by stream, the network costs 70 to 90 µs per 32 ms of audio, whatever runs it: it is too small
for its overhead. Over all streams at once each layer is a matrix product, and the cost falls to 13 µs per
stream at 32 streams. Only the last layer depends on the chunk before, so all chunks of a batch share the others,
also those that follow each other in one stream. The result agrees with the published network to 1e-5; the tests hold
it to ONNX Runtime's.

How it works: 64 samples of context and 512 new ones → magnitudes of a 256-point Fourier transform every 128
samples (4 steps × 129 bins) → four convolutions over time, which leave one step of 128 features → an LSTM
cell → one probability.
"""

from __future__ import annotations

import ctypes
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from pydantic import Field

from mynah.audio.ingest_wire import EngineSource
from mynah.errors import ProviderError
from mynah.providers.base import VadOptions, VadProvider

Floats = NDArray[np.float32]

CHUNK: Final = 512
CONTEXT: Final = 64
_WINDOW, _HOP, _STEPS, _BINS, _HIDDEN = 256, 128, 4, 129, 128
_PADDED: Final = CONTEXT + CHUNK + 64
"""The network mirrors the last 64 samples behind the end."""

_FIRST_SLOTS: Final = 32
"""Rows made at first; doubled when they run out. The number of listening devices bounds it (1.3 KB each)."""

_BLOCK: Final = 128
"""Chunks in one pass at most, 18 KB of working memory each. The products read all weights, 2 MB, in every pass: with
more chunks that is shared by more, but beyond this it hardly matters any more."""

_WEIGHTS: Final = "silero_vad_16k.npz"


class _Workspace:
    """The intermediate arrays of one pass, made once: new ones in each pass would be new pages in each pass.

    A row per chunk. What no pass has needed yet is not resident.
    """

    def __init__(self, rows: int) -> None:
        def array(*shape: int) -> Floats:
            return np.empty((rows, *shape), np.float32)

        self.padded = array(_PADDED)
        stride = self.padded.strides[0]
        windows = as_strided(self.padded, (rows, _STEPS, _WINDOW), (stride, _HOP * 4, 4), writeable=False)
        self.left, self.middle, self.right = windows[:, :, 1:128], windows[:, :, 128], windows[:, :, :128:-1]
        self.even = array(_STEPS, 128)
        self.odd = array(_STEPS, 127)
        self.power = array(_STEPS, _BINS)
        self.sine = array(_STEPS, 127)
        self.one = array(4 * 128)
        self.two = array(2 * 64)
        self.three = array(64)
        self.features = array(_HIDDEN)
        self.gates = array(4 * _HIDDEN)
        self.hidden = array(_HIDDEN)


class _Network:
    """The weights, laid out for batches, and the pass through them."""

    def __init__(self) -> None:
        source = resources.files("mynah.providers.vad") / "data" / _WEIGHTS
        with resources.as_file(source) as path, np.load(path) as data:
            weights: dict[str, Floats] = {name: data[name] for name in data.files}
        basis = weights["stft"][:, 0, :].T  # (sample, cosine bins then sine bins)
        # The window is symmetric, so cosine columns read the same from both ends and sine columns with
        # opposite signs: adding and subtracting the mirrored halves first halves the products. Sample 0 has
        # weight 0, and so have the sines of bins 0 and 128.
        self._cosine = np.ascontiguousarray(basis[1:129, :_BINS])
        self._sine = np.ascontiguousarray(basis[1:128, _BINS + 1 : 2 * _BINS - 1])
        # A convolution over (time, feature) rows is a product with its three taps stacked; at the edges,
        # where the padding is zero, with a part of them.
        self._conv = [_stack_taps(weights[f"conv{index}_weight"]) for index in range(4)]
        self._bias = [weights[f"conv{index}_bias"] for index in range(4)]
        # In the order: in, forget, candidate, out. Three of the four are sigmoids: see `_to_sigmoid`.
        halves = np.repeat(np.array([0.5, 0.5, 1, 0.5], np.float32), _HIDDEN)
        self._gates_new = np.ascontiguousarray(weights["lstm_weight_ih"].T) * halves
        self._gates_old = np.ascontiguousarray(weights["lstm_weight_hh"].T) * halves
        self._gates_bias = (weights["lstm_bias_ih"] + weights["lstm_bias_hh"]) * halves
        self._out = weights["out_weight"][0, :, 0] * np.float32(0.5)
        self._out_bias = weights["out_bias"][0] * np.float32(0.5)

    def encode(self, work: _Workspace, count: int) -> None:
        """Bring the first ``count`` rows from ``padded`` to ``gates``: all that no other chunk has a part in."""
        self._magnitudes(work, count)
        self._convolve(work, count)
        gates = np.matmul(work.features[:count], self._gates_new, out=work.gates[:count])
        gates += self._gates_bias

    def remember(self, gates: Floats, hidden: Floats, cell: Floats) -> tuple[Floats, Floats]:
        """One step of the LSTM: rows of ``work.gates``, which are overwritten, and the states; return the new ones."""
        gates += hidden @ self._gates_old
        np.tanh(gates, out=gates)
        keep_in, keep_old = gates[:, :_HIDDEN], gates[:, _HIDDEN : 2 * _HIDDEN]
        candidate, keep_out = gates[:, 2 * _HIDDEN : 3 * _HIDDEN], gates[:, 3 * _HIDDEN :]
        _to_sigmoid(gates[:, : 2 * _HIDDEN])
        _to_sigmoid(keep_out)
        keep_in *= candidate
        cell = keep_old * cell
        cell += keep_in
        return keep_out * np.tanh(cell), cell

    def decide(self, hidden: Floats) -> Floats:
        """Return a probability for each row of states, which are overwritten."""
        probabilities = np.maximum(hidden, 0, out=hidden) @ self._out
        probabilities += self._out_bias
        return _to_sigmoid(np.tanh(probabilities, out=probabilities))

    def _magnitudes(self, work: _Workspace, count: int) -> None:
        """``padded`` → ``power``: 4 steps × 129 bins."""
        left, right = work.left[:count], work.right[:count]
        even, odd = work.even[:count], work.odd[:count]
        np.add(left, right, out=even[:, :, :127])
        even[:, :, 127] = work.middle[:count]
        np.subtract(left, right, out=odd)
        power = work.power[:count].reshape(-1, _BINS)
        sine = work.sine[:count].reshape(-1, 127)
        np.matmul(even.reshape(-1, 128), self._cosine, out=power)
        np.matmul(odd.reshape(-1, 127), self._sine, out=sine)
        np.square(power, out=power)
        np.square(sine, out=sine)
        power[:, 1:128] += sine
        np.sqrt(power, out=power)

    def _convolve(self, work: _Workspace, count: int) -> None:
        """``power`` → ``features``: four convolutions with three taps.

        The second and third halve the number of steps.
        """
        first, second, third, fourth = self._conv
        steps = work.power[:count].reshape(count, _STEPS * _BINS)
        one, two = work.one[:count], work.two[:count]
        np.matmul(steps[:, : 2 * _BINS], first[_BINS:], out=one[:, :128])
        np.matmul(steps[:, : 3 * _BINS], first, out=one[:, 128:256])
        np.matmul(steps[:, _BINS:], first, out=one[:, 256:384])
        np.matmul(steps[:, 2 * _BINS :], first[: 2 * _BINS], out=one[:, 384:])
        _rectify(one.reshape(-1, 128), self._bias[0])
        np.matmul(one[:, : 2 * 128], second[128:], out=two[:, :64])
        np.matmul(one[:, 128:], second, out=two[:, 64:])
        _rectify(two.reshape(-1, 64), self._bias[1])
        three = _rectify(np.matmul(two, third[64:], out=work.three[:count]), self._bias[2])
        _rectify(np.matmul(three, fourth[64:128], out=work.features[:count]), self._bias[3])


def _stack_taps(weight: Floats) -> Floats:
    """(out, in, 3) → (3 · in, out)."""
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(-1, weight.shape[0]))


def _rectify(values: Floats, bias: Floats) -> Floats:
    values += bias
    return np.maximum(values, 0, out=values)


def _to_sigmoid(tanh: Floats) -> Floats:
    """Make tanh(x/2) the sigmoid of x, in place: tanh cannot overflow and is faster in numpy.

    The half is in the weights.
    """
    tanh += 1
    tanh *= np.float32(0.5)
    return tanh


class SileroEngine:
    """The `VadEngine`: per slot the LSTM's state and the last 64 samples. Used by one thread at a time."""

    chunk_samples = CHUNK
    sequences = True

    def __init__(self) -> None:
        self._network = _Network()
        self._work = _Workspace(_BLOCK)
        self._hidden = np.zeros((_FIRST_SLOTS, _HIDDEN), np.float32)
        self._cell = np.zeros((_FIRST_SLOTS, _HIDDEN), np.float32)
        self._context = np.zeros((_FIRST_SLOTS, CONTEXT), np.float32)
        self._free = list(range(_FIRST_SLOTS - 1, -1, -1))

    def open(self) -> int:
        """Take a slot with a fresh state."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        for state in (self._hidden, self._cell, self._context):
            state[slot] = 0
        return slot

    def close(self, slot: int) -> None:
        """Return a slot."""
        self._free.append(slot)

    def process(self, slots: NDArray[np.intp], chunks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the speech probability of each row of ``chunks`` (n × 512, −1…1).

        A slot may occur several times: its chunks follow each other.
        """
        count = len(slots)
        if count <= _BLOCK:
            return self._block(slots, chunks)
        size = -(-count // -(-count // _BLOCK))  # passes of about the same size: small ones cost too much
        passes = [self._block(slots[at : at + size], chunks[at : at + size]) for at in range(0, count, size)]
        return np.concatenate(passes)

    def _block(self, slots: NDArray[np.intp], chunks: Floats) -> Floats:
        count, work = len(slots), self._work
        padded = work.padded[:count]
        padded[:, :CONTEXT] = self._context[slots]
        padded[:, CONTEXT : CONTEXT + CHUNK] = chunks
        padded[:, CONTEXT + CHUNK :] = chunks[:, -2 : -2 - 64 : -1]
        rounds, earlier = _rounds(slots.tolist())
        for number in range(1, len(rounds)):
            padded[rounds[number], :CONTEXT] = chunks[earlier[number], -CONTEXT:]
        self._network.encode(work, count)
        for rows in rounds:
            chosen = slots[rows]
            hidden, cell = self._network.remember(work.gates[rows], self._hidden[chosen], self._cell[chosen])
            self._hidden[chosen] = work.hidden[rows] = hidden
            self._cell[chosen] = cell
            self._context[chosen] = chunks[rows, -CONTEXT:]
        return self._network.decide(work.hidden[:count])

    def _grow(self) -> None:
        old = len(self._hidden)
        self._hidden, self._cell, self._context = (
            np.concatenate([state, np.zeros_like(state)])
            for state in (self._hidden, self._cell, self._context)
        )
        self._free += range(2 * old - 1, old - 1, -1)


def _rounds(slots: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Return the rows in which a slot occurs for the first time, the second and so on, and where it did before each."""
    rounds: list[list[int]] = []
    earlier: list[list[int]] = []
    seen: dict[int, tuple[int, int]] = {}  # how often a slot has occurred, and where last
    for row, slot in enumerate(slots):
        number, before = seen.get(slot, (0, -1))
        if number == len(rounds):
            rounds.append([])
            earlier.append([])
        rounds[number].append(row)
        earlier[number].append(before)
        seen[slot] = number + 1, row
    return rounds, earlier


def limit_blas_threads() -> bool:
    """Make numpy's matrix products stay on the thread that asks for them. Returns whether that was possible.

    Two threads finish a batch of 32 streams 1.5 times sooner (8.6 against 12.6 µs per stream), but take
    more CPU time for it, and between the products OpenBLAS keeps every core spinning, the event loop's
    among them. One batch takes well under a millisecond, so nobody waits for it. This does what
    threadpoolctl would, for the OpenBLAS in numpy's wheels, at any time after numpy was imported. With
    another BLAS set OMP_NUM_THREADS=1.
    """
    package = Path(np.__file__).parent
    for folder in (package.parent / "numpy.libs", package / ".dylibs"):
        for path in folder.glob("*openblas*"):
            library = ctypes.CDLL(str(path))  # already loaded: this only finds it again
            for prefix in ("scipy_openblas", "openblas"):
                for suffix in ("64_", ""):
                    setter = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
                    if setter is not None:
                        setter(ctypes.c_int(1))
                        return True
    return False


def ready_engine(_: str = "") -> SileroEngine:
    """Return an engine that has made its first pass."""
    limit_blas_threads()
    engine = SileroEngine()
    slot = engine.open()
    engine.process(np.array([slot]), np.zeros((1, CHUNK), np.float32))
    engine.close(slot)
    return engine


class SileroOptions(VadOptions):
    """Options of ``type: silero``."""

    model_dir: str | None = Field(
        None,
        description="accepted from older configurations and not used: the weights are part of the package",
    )


class SileroVad(VadProvider[SileroOptions]):
    """Silero VAD for all sessions of the process."""

    Options = SileroOptions
    summary = "Silero VAD 16 kHz, batched over all sessions; its weights are part of the package"

    def __init__(self, name: str, options: SileroOptions) -> None:
        super().__init__(name, options)
        self._engine: SileroEngine | None = None

    async def start(self) -> None:
        """Load the weights (20 ms) and make the first pass, so that the first user does not pay for it."""
        self._engine = ready_engine()

    def source(self) -> EngineSource:
        """Return how another process makes the engine."""
        return EngineSource(f"{__name__}:{ready_engine.__name__}")

    async def stop(self) -> None:
        """Forget weights and states."""
        self._engine = None

    def engine(self) -> SileroEngine:
        """Return the shared engine. Raises ProviderError before `start`."""
        if self._engine is None:
            raise ProviderError("the voice detector was not started", provider=self.name)
        return self._engine
