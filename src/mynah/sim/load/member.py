"""What a crowd needs of its devices, whatever their transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mynah.sim.load.device import State
    from mynah.sim.load.talker import Talker
    from mynah.sim.load.tally import Tally


class Member(Protocol):
    """One device; `mynah.sim.load.device.Device` and `mynah.sim.load.fetcher.Fetcher` are."""

    number: int
    state: State
    since: float
    """When the current step of connecting began, and later when anything but idleness was last seen."""
    talker: Talker | None
    mic_open: bool
    failures: int
    """Failed connections in a row."""
    tried: bool
    """Whether the outcome of its first connection is known."""

    @property
    def tally(self) -> Tally:
        """Where everything is counted."""

    def listen(self) -> None:
        """Open the microphone and say so."""

    def stop_listening(self) -> None:
        """Release the talk button."""

    def abort(self) -> None:
        """Interrupt the answer by button."""

    def send_audio(self, framed: bytes) -> None:
        """Send a piece of 60 ms, framed as it goes over the line, if the microphone is open."""

    def stuck(self) -> None:
        """The device was left speaking."""

    def judge(self) -> None:
        """Count how the packets kept their rhythm that have come since the last time."""

    def hang_up(self, why: str = "") -> None:
        """Drop the connection. With ``why`` that is the server's fault."""
