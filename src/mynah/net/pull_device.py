"""A device that fetches its answers, and its conversation: both outlive the connections that they come over.

The session is the same as everybody's. What is special is here: recordings come in whatever pieces
(`mynah.net.pull_upload`), audio leaves only when the device asks for it (`mynah.net.pull_download`), and a link that is
lost ends nothing at first.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import msgspec
from loguru import logger

from mynah.dialogue.admission import TRY_AGAIN_LATER
from mynah.dialogue.services import Services
from mynah.dialogue.turn import Phase
from mynah.net.gate import Gate
from mynah.net.peer import Peer
from mynah.net.pull_download import Download, Line
from mynah.net.pull_reply import ReplyStore
from mynah.net.pull_upload import Upload
from mynah.wire import pull4g
from mynah.wire.messages import (
    Abort,
    Hello,
    Listen,
    ListenMode,
    ServerMessage,
    Stt,
    TtsSentence,
    TtsStart,
    TtsStop,
)
from mynah.wire.pull4g import ErrorCode, Options

UPLOAD_LOST_S: Final = 10.0
"""A recording that does not go on for so long, connected or not, is over: what there is of it is answered."""
GONE_S: Final = 60.0
"""How long a conversation waits for a device whose connection was lost."""

log = logger.bind(tag="pull4g")


class Home(Protocol):
    """Who keeps the devices."""

    def departed(self, device: PullDevice) -> None:
        """Its conversation is over."""


class PullDevice:
    """One device while it has a conversation. Implements `mynah.net.gate.DeviceLink`; made and used on one loop."""

    __slots__ = ("_ended", "_gate", "_home", "_loop", "_options", "_session", "_upload", "download", "peer")

    def __init__(
        self, gate: Gate, home: Home, peer: Peer, options: Options, store: ReplyStore, lead_ms: int
    ) -> None:
        """Open the conversation. ``lead_ms``: how far ahead of its speaker the device is given audio."""
        self._gate, self._home = gate, home
        self.peer = peer
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._upload: Upload | None = None
        self._ended = False
        self.download = Download(options, store, lead_ms, self._thinks)
        """Its way down."""
        self._session = gate.open(self, peer)
        self._session.on_message(Hello())

    @property
    def session_id(self) -> str:
        """Name of the conversation."""
        return self._session.session_id

    @property
    def line(self) -> Line | None:
        """Its connection, if it has one."""
        return self.download.line

    def suits(self, options: Options) -> bool:
        """Return whether the conversation can go on in the form that the device asks for now."""
        ours = self._options
        return (options.codec, options.rate, options.text) == (ours.codec, ours.rate, ours.text)

    # -- DeviceLink

    def equip(self, services: Services) -> Services:
        """Return what the session is given: all as usual, but its voice leaves when the device fetches it."""
        return msgspec.structs.replace(services, voice=self.download.tap(services.voice))

    def send(self, message: ServerMessage) -> None:
        """Take a message; most have no form on this wire."""
        match message:
            case TtsStart():
                self.download.begin()
            case TtsStop():
                self.download.over()
            case Stt(words):
                self.download.tell(pull4g.stt, words)
            case TtsSentence(words, state="sentence_start"):
                self.download.tell(pull4g.sentence, words)
            case _:
                pass

    def send_audio(self, packet: bytes, timestamp_ms: int) -> None:  # noqa: ARG002
        """Take a frame that the device has asked for."""
        self.download.add(packet)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the conversation. The connection, which was opened ahead of time, stays unless there is a reason."""
        if self._ended:
            return
        if self.line is not None and code == TRY_AGAIN_LATER:
            self.line.write(pull4g.error(ErrorCode.BUSY, reason, self.line.framed))
        elif self.line is not None and reason:
            self.line.close()
        # Not within a call of the session's own.
        self._loop.call_soon(self.abort)

    def abort(self) -> None:
        """End the conversation at once."""
        if self._ended:
            return
        self._ended = True
        self._drop_upload()
        try:
            self._session.on_closed()
        finally:
            self.download.silence()
            self._gate.closed(self)
            self._home.departed(self)

    # -- from the device

    def on_start(self, options: Options) -> None:
        """A recording begins, or goes on after a lost link."""
        if options.offset is not None and self._upload is not None:
            self._upload.resume(options.offset)
        else:
            self.on_interrupt()
            self._upload = Upload(self._session, options.codec, options.rate, self._on_uploaded)
            self._session.on_message(Listen("start", ListenMode.MANUAL))
        self._tell_received()

    def on_audio(self, data: bytes) -> None:
        """Take recorded audio; ignored when there is no recording it could belong to."""
        if self._upload is not None and not self._upload.feed(data):
            if self.line is not None:
                limit = "a recording may be 60 s or 10 MB long; it is answered up to there"
                self.line.write(pull4g.error(ErrorCode.TOO_LARGE, limit, self.line.framed))
            self._upload.finish()

    def on_complete(self) -> bool:
        """The recording is complete; return False when there is none."""
        if self._upload is None:
            return False
        self._tell_received()
        self._upload.finish()
        return True

    def on_request(self, options: Options) -> None:
        """The device asks for audio."""
        if self._upload is not None:
            self._upload.finish()  # who asks for the answer has nothing more to say
        self.download.poll(options.offset)

    def on_interrupt(self) -> None:
        """Stop: end the turn in progress, whatever it is doing, and drop what was not sent."""
        self._drop_upload()
        if self._session.phase is Phase.LISTENING:
            self._session.on_message(Listen("stop"))
        if self._session.phase is not Phase.IDLE:
            self._session.on_message(Abort())
        self.download.silence()

    def check(self, now: float) -> None:
        """Look for what waits in vain; called every second."""
        upload, download = self._upload, self.download
        if upload is not None and not upload.complete and now - upload.last_at > UPLOAD_LOST_S:
            log.info("{}: a recording of {:.1f} s broke off", self.peer.device_id, upload.heard_s)
            upload.finish()
        if download.line is None and now - download.lost_at > GONE_S:
            self.abort()
        elif self._session.phase is Phase.REPLYING and download.unfetched(now):
            log.info("{}: a reply was not fetched", self.peer.device_id)
            self.on_interrupt()
        else:
            download.expire(now)

    # -- pieces

    def _thinks(self) -> bool:
        """Whether the conversation is about to bring audio."""
        return self._session.phase in (Phase.RECOGNISING, Phase.THINKING, Phase.REPLYING)

    def _on_uploaded(self) -> None:
        self._upload = None
        self._session.on_message(Listen("stop"))

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.close()

    def _tell_received(self) -> None:
        """Tell how much has arrived, so that the device knows where to go on."""
        if self._upload is not None and self.line is not None and self.line.framed:
            self.line.write(pull4g.received(self._upload.received))
