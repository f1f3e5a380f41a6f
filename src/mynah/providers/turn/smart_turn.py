"""Smart Turn, version 3: a Whisper encoder with a classifier that hears whether an utterance is complete.

The network is an ONNX file of 8 MB (8 bit) or 32 MB that is not part of the package; `docs/turn-detector.md` says
where to get it. It takes ``input_features`` (n × 80 × 800, `features`) and gives one probability per row.
"""

from __future__ import annotations

import asyncio
import importlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import Field

from mynah.errors import ProviderError, ProviderProtocolError, ProviderUnavailableError
from mynah.providers.base import TurnDetectorOptions, TurnDetectorProvider
from mynah.providers.turn.features import FRAMES, MELS, Floats, log_mel
from mynah.providers.vad.silero import limit_blas_threads
from mynah.providers.wrap import provider_errors

MAX_QUESTIONS: Final = 8
"""Questions in work or waiting, of all users together. One takes 10 to 50 ms, and nobody waits long for the answer.
Overflow: the newest is refused, and its turn ends by silence. One that is given up while it waits is not worked on."""

_SOURCE: Final = "https://huggingface.co/pipecat-ai/smart-turn-v3"
_INPUT: Final = "input_features"


class SmartTurnOptions(TurnDetectorOptions):
    """Options of ``type: smart_turn``."""

    model: str = Field(
        default="data/models/smart-turn-v3.2-cpu.onnx",
        min_length=1,
        description="path of the network, an .onnx file of the Smart Turn v3 family",
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=64,
        description="cores that work on one question; questions are answered one by one",
    )


class SmartTurn(TurnDetectorProvider[SmartTurnOptions]):
    """Smart Turn for all sessions of the process, on one thread of its own."""

    Options = SmartTurnOptions
    summary = "Smart Turn v3: hears whether a sentence is complete; needs a model file of 8 MB"

    def __init__(self, name: str, options: SmartTurnOptions) -> None:
        super().__init__(name, options)
        self._session: Any = None
        self._worker: ThreadPoolExecutor | None = None
        self._room = threading.BoundedSemaphore(MAX_QUESTIONS)

    async def start(self) -> None:
        """Load the network, look whether it is the right one, and make a first pass. Raises ProviderError."""
        await self.stop()
        worker = ThreadPoolExecutor(1, thread_name_prefix=f"turn-{self.name}")
        try:
            self._session = await asyncio.get_running_loop().run_in_executor(worker, self._load)
            self._worker = worker
        finally:
            if self._worker is None:
                worker.shutdown(wait=False)

    async def stop(self) -> None:
        """Release the network and end the thread, once the question in work is answered; the others are refused."""
        self._session = None
        worker, self._worker = self._worker, None
        if worker is not None:
            await asyncio.to_thread(worker.shutdown)

    async def probability(self, pcm: bytes) -> float:
        """Return how likely it is that the speaker has finished. Raises ProviderError, also when too many ask."""
        if self._worker is None:
            raise ProviderError("the turn detector was not started", provider=self.name)
        if not self._room.acquire(blocking=False):
            message = f"{MAX_QUESTIONS} questions are waiting already"
            raise ProviderUnavailableError(message, provider=self.name)
        future = self._worker.submit(self._judge, pcm)
        # Room is made when the work is done or was dropped, not when its caller has gone: the thread is still busy.
        future.add_done_callback(lambda _: self._room.release())
        return await asyncio.wrap_future(future)

    # ------------------------------------------------------------ on the worker thread

    def _judge(self, pcm: bytes) -> float:
        session = self._session
        if session is None:
            raise ProviderUnavailableError("the turn detector was stopped", provider=self.name)
        return self._pass(session, log_mel(pcm))

    def _pass(self, session: Any, features: Floats) -> float:
        with provider_errors(self.name):
            (output,) = session.run(None, {_INPUT: features[np.newaxis]})
        result = np.asarray(output).reshape(-1)
        if result.size != 1:
            raise ProviderProtocolError(f"one probability expected, got {result.size}", provider=self.name)
        probability = float(result[0])
        if not (math.isfinite(probability) and 0.0 <= probability <= 1.0):
            raise ProviderProtocolError(f"{probability} is no probability", provider=self.name)
        return probability

    def _load(self) -> Any:
        path = Path(self.options.model).expanduser()
        if not path.is_file():
            raise self._unusable(
                f"there is no model file {path.absolute()}: download smart-turn-v3.2-cpu.onnx from {_SOURCE} and put "
                f"it there, or set TurnDetector.{self.name}.model to where it is"
            )
        try:
            runtime = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise self._unusable(
                f"ONNX Runtime is not installed ({error}): pip install 'mynah-server[turn]'"
            ) from error
        limit_blas_threads()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = self.options.threads
        options.inter_op_num_threads = 1
        # Waiting threads must not keep the event loop's core busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors: warnings about the file's making help nobody
        try:
            with provider_errors(self.name):
                session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except ProviderError as error:
            raise self._unusable(f"{path} cannot be loaded, is it complete? ({error})") from error
        self._check(path, session)
        return session

    def _check(self, path: Path, session: Any) -> None:
        """Raise ProviderError when the file is another network than it should be."""
        inputs, outputs = session.get_inputs(), session.get_outputs()
        fits = (
            len(inputs) == 1
            and len(outputs) == 1
            and inputs[0].name == _INPUT
            and inputs[0].type == "tensor(float)"
            and len(inputs[0].shape) == 3
            # A size that the file leaves open is a text or None.
            and all(
                size == wanted or not isinstance(size, int)
                for size, wanted in zip(inputs[0].shape, (1, MELS, FRAMES), strict=True)
            )
        )
        if not fits:
            shown = ", ".join(f"{item.name} {item.type} {item.shape}" for item in (*inputs, *outputs))
            raise self._unusable(
                f"{path} is not a Smart Turn v3 network, which has one input, {_INPUT} of 1 x {MELS} x {FRAMES}, "
                f"and one output; this one has {shown}"
            )
        try:
            self._pass(session, log_mel(b""))
        except ProviderError as error:
            raise self._unusable(f"{path} is not a Smart Turn v3 network: for silence, {error}") from error

    def _unusable(self, message: str) -> ProviderError:
        return ProviderError(message, provider=self.name)
