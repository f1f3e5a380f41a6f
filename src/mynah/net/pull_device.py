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
from mynah.dialogue.session import Session
from mynah.dialogue.turn import Phase
from mynah.net.gate import Gate
from mynah.net.peer import Peer
from mynah.net.pull_download import Download, Line, Outlook
from mynah.net.pull_reply import ReplyStore
from mynah.net.pull_upload import Upload, UploadStore
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
UNUSED_S: Final = 5.0
"""The same if nothing was said in it: who only asks whether there is anything must not hold a place for long."""

log = logger.bind(tag="pull4g")


class Home(Protocol):
    """Who keeps the devices."""

    def departed(self, device: PullDevice) -> None:
        """Its conversation is over."""


class PullDevice:
    """One device while it has a conversation. Implements `mynah.net.gate.DeviceLink`; made and used on one loop."""

    # fmt: off
    __slots__ = (
        "_gate", "_home", "_loop", "_options", "_session", "_upload", "_uploads", "download", "ending", "peer",
        "session_id",
    )
    # fmt: on

    def __init__(
        self,
        gate: Gate,
        home: Home,
        peer: Peer,
        options: Options,
        store: ReplyStore,
        lead_ms: int,
        uploads: UploadStore | None = None,
    ) -> None:
        """Open the conversation. ``lead_ms``: how far ahead of its speaker the device is given audio."""
        self._gate, self._home = gate, home
        self.peer = peer
        self._options = options
        self._loop = asyncio.get_running_loop()
        # The newest one, also when it is complete: who lost the link then does not know, and goes on with it.
        self._upload: Upload | None = None
        self._uploads = uploads or UploadStore()
        self.ending = False
        """The conversation is over or about to be."""
        self.download = Download(options, store, lead_ms, self._outlook)
        """Its way down."""
        session = gate.open(self, peer)
        self._session: Session | None = session  # None: over
        self.session_id = session.session_id
        """Name of the conversation."""
        session.on_message(Hello())

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
        if self._session is None:
            return
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
        if self._session is not None:
            self.download.add(packet)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the conversation. The connection, which was opened ahead of time, stays unless there is a reason."""
        if self.ending:
            return
        self.ending = True
        if code == TRY_AGAIN_LATER:
            self._refuse(ErrorCode.BUSY, reason)
        elif self.line is not None and reason:
            self.line.close()
        # Not within a call of the session's own.
        self._loop.call_soon(self.abort)

    def abort(self) -> None:
        """End the conversation at once."""
        session, self._session = self._session, None
        if session is None:
            return
        self.ending = True
        self._drop_upload()
        try:
            session.on_closed()
        finally:
            self._gate.closed(self)
            self._home.departed(self)
            self.download.close()

    # -- from the device

    def on_start(self, options: Options) -> None:
        """A recording begins, or goes on after a lost link. Who goes on at its first byte begins anew."""
        if options.offset and self._upload is not None:
            self._upload.resume(options.offset)
        else:
            self.on_interrupt()
            if self._session is None:
                return
            self._upload = Upload(
                self._session, options.codec, options.rate, self._on_uploaded, self._uploads
            )
            self._session.on_message(Listen("start", ListenMode.MANUAL))
        self._tell_received()

    def on_audio(self, data: bytes) -> None:
        """Take recorded audio; ignored when there is no recording it could belong to."""
        if (
            self._upload is not None
            and self._phase in (Phase.IDLE, Phase.CLOSED)
            and not self._upload.complete
        ):
            self._upload.ignore()  # there is no room for a conversation, and nobody listens
        if self._upload is not None and not self._upload.feed(data):
            limit = "a recording may be 60 s or 10 MB long; it is answered up to there"
            self._refuse(ErrorCode.TOO_LARGE, limit)
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
        if self._upload is not None and self.line is not None and not self.line.framed:
            self._upload.finish()  # who asks for the answer has nothing more to say; only frames can be mixed
        self.download.poll(options.offset)

    def on_interrupt(self) -> None:
        """Stop: end the turn in progress, whatever it is doing, and drop what was not sent."""
        self._drop_upload()
        session = self._session
        if session is not None and session.phase is Phase.LISTENING:
            session.on_message(Listen("stop"))
        if session is not None and session.phase is not Phase.IDLE:
            session.on_message(Abort())
        self.download.silence()

    def check(self, now: float) -> None:
        """Look for what waits in vain; called every second."""
        upload, download = self._upload, self.download
        if upload is not None and not upload.complete and now - upload.last_at > UPLOAD_LOST_S:
            log.info("{}: a recording of {:.1f} s broke off", self.peer.device_id, upload.heard_s)
            upload.finish()
        used = self._upload is not None or download.used
        if download.line is None and now - download.lost_at > (GONE_S if used else UNUSED_S):
            self.abort()
        elif self._phase in (Phase.REPLYING, Phase.CLOSED) and download.unfetched(now):
            # Closed is also who is being told that there is no room.
            log.info("{}: a reply was not fetched", self.peer.device_id)
            self.on_interrupt()
        else:
            download.expire(now)

    # -- pieces

    @property
    def _phase(self) -> Phase:
        return self._session.phase if self._session is not None else Phase.CLOSED

    def _outlook(self) -> Outlook:
        """Return what the conversation is about to bring."""
        upload, phase = self._upload, self._phase
        if phase in (Phase.RECOGNISING, Phase.THINKING, Phase.REPLYING):
            return Outlook.SOON
        if phase is not Phase.LISTENING:
            return Outlook.NOTHING
        return Outlook.SOON if upload is not None and upload.complete else Outlook.LATER

    def _on_uploaded(self) -> None:
        if self._session is not None:
            self._session.on_message(Listen("stop"))

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.close()

    def _refuse(self, code: ErrorCode, text: str) -> None:
        if self.line is not None:
            if not self.line.framed:
                self.download.end_poll()  # in the middle of audio it would be taken for audio
            self.line.write(pull4g.error(code, text, self.line.framed))

    def _tell_received(self) -> None:
        """Tell how much has arrived, so that the device knows where to go on."""
        if self._upload is not None and self.line is not None and self.line.framed:
            self.line.write(pull4g.received(self._upload.received))
