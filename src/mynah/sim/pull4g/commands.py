"""What a device says over one connection after the other; the first command on each tells who it is, and its form."""

from __future__ import annotations

from typing import Protocol

import msgspec

from mynah.sim.pull4g.codec import Form
from mynah.wire import pull4g
from mynah.wire.pull4g import Options
from mynah.wire.pull4g_words import MAX_OFFSET


class Writing(Protocol):
    """Where it goes."""

    def write(self, data: bytes) -> None:
        """Send."""


class Speaker(msgspec.Struct, frozen=True):
    """Who talks, and how."""

    device_id: str
    form: Form
    token: str = ""
    client_id: str = ""
    """Told together with a token."""
    text: bool = True
    """Ask for transcript and sentences as well."""
    bare: bool = False
    """Know no options at all."""


class Commands:
    """Writes the commands of one device. Without a connection nothing is written."""

    __slots__ = ("_introduced", "_line", "framed", "who")

    def __init__(self, who: Speaker) -> None:
        """Raises WireError for a token that fits in no command, or a bad id."""
        self.who = who
        self._line: Writing | None = None
        self._introduced = False
        self.framed = False
        """Whether this connection is in framed mode, in our direction."""
        pull4g.device_request(who.device_id, self._options(MAX_OFFSET, whole=True), framed=False)

    def attach(self, line: Writing | None) -> None:
        """From now on commands go over this connection, a new one; None: there is none."""
        self._line = line
        self._introduced = self.framed = False

    def start(self, offset: int | None = None) -> None:
        """A recording begins, or goes on at ``offset``."""
        self._write(pull4g.device_start(self.who.device_id, self._options(offset, whole=True), self.framed))
        self._introduce()

    def audio(self, piece: bytes) -> None:
        """Send 60 ms of the recording."""
        self._write(pull4g.device_audio(piece, self.framed))

    def complete(self) -> None:
        """The recording is over."""
        self._write(pull4g.device_complete(self.framed))

    def request(self, offset: int | None = None) -> None:
        """Poll, after a lost link from ``offset`` on."""
        options = self._options(offset, whole=not self._introduced)
        self._write(pull4g.device_request(self.who.device_id, options, self.framed))
        self._introduce()

    def interrupt(self) -> bool:
        """Stop recording and reply; return whether there was a connection to say it over."""
        token = self.who.token if self.who.token and not self._introduced and not self.who.bare else None
        self._write(pull4g.device_interrupt(self.who.device_id, self.framed, token))
        return self._line is not None

    def acknowledge(self, count: int) -> None:
        """So many bytes of the reply have arrived."""
        self._write(pull4g.device_acknowledge(count))

    def keep_alive(self) -> None:
        """We are still there."""
        self._write(pull4g.device_keep_alive(self.framed))

    def _options(self, offset: int | None, *, whole: bool) -> Options:
        """Return what a command tells; ``whole``: in what form we talk, too, as a conversation may begin with it."""
        who = self.who
        if who.bare or not whole:
            return Options(offset=offset)
        first = not self._introduced
        return Options(
            token=who.token if first and who.token else None,
            codec=who.form.codec,
            rate=who.form.rate,
            framed=who.form.framed and not self.framed,
            text=who.text,
            offset=offset,
            client_id=who.client_id if first and who.token else "",
        )

    def _introduce(self) -> None:
        self._introduced, self.framed = True, self.who.form.framed

    def _write(self, data: bytes) -> None:
        if self._line is not None:
            self._line.write(data)
