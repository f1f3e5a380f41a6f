"""The person in front of a device: its buttons and its wake word, and what firmware makes of them in each state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from mynah.sim.device import DeviceState, SimulatedDevice
from mynah.wire.messages import ListenMode

Connect = Callable[[], Awaitable[object]]
"""Opens the device's connection. Raises ConnectError."""


class User:
    """Uses one device. A connection is opened when one is needed, as firmware does."""

    def __init__(self, device: SimulatedDevice, connect: Connect) -> None:
        self._device = device
        self._connect = connect
        self._released = False

    async def toggle(self) -> None:
        """Click the button of a device with one: talk, interrupt, or hang up. Raises ConnectError."""
        device = self._device
        match device.state:
            case DeviceState.IDLE:
                stale = await self._ready()
                device.listen(device.default_mode)
                self._stumble(stale)
            case DeviceState.LISTENING:
                await device.close()
            case DeviceState.SPEAKING:
                device.abort()
            case DeviceState.CONNECTING:
                pass

    async def press(self) -> None:
        """Press the talk button. While the device speaks it stops and listens at once. Raises ConnectError.

        A `release` while the connection is being opened takes effect afterwards.
        """
        device = self._device
        self._released = False
        if device.state is DeviceState.SPEAKING:
            device.abort()
            device.listen(ListenMode.MANUAL)
        elif device.state is DeviceState.IDLE:
            stale = await self._ready()
            device.listen(ListenMode.MANUAL)
            if self._released:
                device.stop_listening()
            self._stumble(stale)

    def release(self) -> None:
        """Let the talk button go."""
        self._released = True
        self._device.stop_listening()

    async def call(self, word: str, packets: Sequence[bytes] = (), mode: ListenMode | None = None) -> None:
        """Say the wake word; ``packets`` is its sound (Opus, 60 ms each). Raises ConnectError.

        A device that keeps no sound of it (``packets`` empty) just begins to listen.
        """
        device = self._device
        if device.state is DeviceState.CONNECTING:
            return
        stale = device.state is DeviceState.IDLE and await self._ready()
        if packets or device.state is not DeviceState.IDLE:
            device.wake(word, packets, mode)
        else:
            device.listen(mode or device.default_mode)
        self._stumble(stale)

    async def _ready(self) -> bool:
        """See to an open connection; True when one had to be given up that was only silent for too long."""
        stale = False
        if self._device.connected:
            stale = not self._device.channel_open()
            if not stale:
                return False
            await self._device.close()
        await self._connect()
        return stale

    def _stumble(self, stale: bool) -> None:
        """Fall idle after a connection was replaced: the end of the old one is noticed only now."""
        if stale:
            self._device.fall_idle()
