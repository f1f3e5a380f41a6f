"""All devices of one process: they connect at a rate, do what the scenario says, and come back when they are cut off.

There is one timer for microphones (`wheel`) and one for everything else, however many devices there are.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Final, Protocol

from mynah.sim.load.device import NO_HELLO, TRY_LATER, Device, State
from mynah.sim.load.dial import BUSY, Plan
from mynah.sim.load.fetcher import Fetcher
from mynah.sim.load.member import Member
from mynah.sim.load.scenario import Behaviour, Transport
from mynah.sim.load.stock import Recording
from mynah.sim.load.talker import Script, Talker
from mynah.sim.load.tally import Tally
from mynah.sim.load.wheel import Wheel
from mynah.sim.pull4g.codec import Form

BEAT_S: Final = 0.015
"""How often the crowd looks what is due, and how late its event loop is."""

CONNECT_TIMEOUT_S: Final = 10.0
"""What firmware gives the handshake, and then the hello. The OTA address gets as much: people wait no longer."""

IDLE_S: Final = 60.0
"""A server may close a connection on which nothing has happened for so long."""

_CONNECTED: Final = (State.IDLE, State.LISTENING, State.SPEAKING)
_SWEEP_BEATS: Final = 20
_LAG_GRACE_S: Final = 0.001
"""Timers count in whole ms."""
_BURST_S: Final = 0.1
"""After a stall at most so much of the connections that were due is made up for at once."""
_AGAIN_S: Final = (1.0, 3.0)
"""Before a device that was cut off comes back."""
_BUSY_S: Final = (5.0, 10.0)
"""Before one comes back that was told to."""
_LONGEST_S: Final = 30.0
"""Pause after many failures: it doubles with each."""
_CLOSED_AT_ONCE: Final = 200
_GC: Final = (50_000, 20, 100)
"""Thresholds of Python's collector: a full collection walks over all devices and would look like a late answer."""


class Dialling(Protocol):
    """Opens connections; `mynah.sim.load.dial.Dialer` does."""

    async def dial(self, device: Member) -> str:
        """Open a connection for a device, which is told; return why there is none, or nothing."""

    async def close(self) -> None:
        """Give back what that needed."""


class Crowd:
    """Implements `mynah.sim.load.device.Home`. Use from one event loop; `close` it."""

    def __init__(self, plan: Plan, stock: Sequence[Recording], dialer: Dialling) -> None:
        """``stock`` is what talkers say; it may be empty when nobody talks."""
        self.tally = Tally()
        self._scenario = plan.scenario
        self.mode = plan.scenario.mode
        self.protocol = plan.scenario.protocol
        self._plan = plan
        self._dialer = dialer
        self._script = Script.make(plan.scenario, list(stock))
        self._wheel = Wheel()
        self._dice = random.Random(plan.process)
        self._devices: list[Member] = []
        # Each device is in one of these at most, so there are never more entries than devices.
        self._waiting: deque[Member] = deque()
        """They want to connect, in this order."""
        self._later: list[tuple[float, int, Member]] = []
        """They want to connect when it is time; a heap."""
        self._dialling: dict[Member, asyncio.Task[None]] = {}
        self._greeting: dict[Member, None] = {}
        """They wait for the server's hello, the oldest first."""
        self._leaving: deque[tuple[float, float, Member]] = deque()
        """With ``churn``: when who hangs up that has been there since when, in this order."""
        self._allowance = 0.0
        self._connected_at = self._ramp_at = 0.0
        self._beats = 0
        self._due = 0.0
        self._closing = False
        self._timer: asyncio.TimerHandle | None = None
        gc.set_threshold(*_GC)

    # ------------------------------------------------------------ what the director wants

    def ramp(self, step: int, devices: int, talkers: int) -> None:
        """Begin a step: so many devices in all, so many of whom talk. Numbers never shrink."""
        self._ramp_at = time.monotonic()
        before, self.tally = self.tally, Tally(step=step)
        self.tally.connected = before.connected
        self.tally.untried = before.untried
        for index in range(len(self._devices), devices):
            # Numbers are dealt out in turn, so that those of two processes never meet.
            device = self._new(index * self._plan.processes + self._plan.process)
            self._devices.append(device)
            self._waiting.append(device)
            self.tally.untried += 1
        for device in self._devices[:talkers]:
            if device.talker is None:
                device.talker = Talker(device, self._script, device.number)
                if device.state in _CONNECTED:
                    device.talker.start()
                    self._wheel.add(device.talker, device.number)
        if self._timer is None:
            self._due = self._connected_at = time.monotonic()
            self._beat()

    def hold(self) -> None:
        """All have connected, or failed to: what follows is measured."""
        self.settle()  # of replies that have begun already only the rest counts
        self.tally.hold()
        # What exists stays. Not collected before: that would hold up everybody.
        gc.freeze()

    def settle(self) -> Tally:
        """Return what has been counted in this step, replies that are going on or waited for included."""
        now = time.monotonic()
        self.tally.waits, self.tally.silences = [], []
        for device in self._devices:
            device.judge()
            if device.talker is not None:
                device.talker.settle(now)
        return self.look()

    def look(self) -> Tally:
        """Return what has been counted in this step, up to date. It goes on counting."""
        self.tally.talking = sum(
            device.talker.in_turn for device in self._devices if device.talker is not None
        )
        return self.tally

    async def close(self) -> None:
        """Everybody hangs up, a few at a time: the server must not be made to look bad by what comes after."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        self._wheel.stop()
        dialling = list(self._dialling.values())
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)
        for number, device in enumerate(self._devices):
            device.hang_up()
            if number % _CLOSED_AT_ONCE == _CLOSED_AT_ONCE - 1:
                await asyncio.sleep(0.01)
        await self._dialer.close()

    # ------------------------------------------------------------ what devices tell

    def greeting(self, device: Member) -> None:
        """The device has connected and says hello."""
        self._greeting[device] = None

    def greeted(self, device: Member) -> None:
        """The server has answered the hello."""
        self._greeting.pop(device, None)
        self.tally.connected += 1
        self.tally.attempted += 1
        self.tally.succeeded += 1
        self._tried(device)
        if device.talker is not None:
            self._wheel.add(device.talker, device.number)
        if self._scenario.behaviour is Behaviour.CHURN:
            self._leaving.append((device.since + self._scenario.stay_s, device.since, device))

    def ended(self, device: Member, why: str, code: int | None) -> None:
        """The connection is gone; see `mynah.sim.load.device.Home`."""
        state, device.state = device.state, State.AWAY
        self._greeting.pop(device, None)
        if device.talker is not None:
            self._wheel.remove(device.talker, device.number)
        if self._closing:
            return
        if state is State.GREETING:
            self._failed(device, BUSY if code == TRY_LATER else why)
            return
        self.tally.connected -= 1
        now = time.monotonic()
        if not why:  # the device's own will
            if self._scenario.behaviour is Behaviour.CHURN:
                self._waiting.append(device)
            else:
                self._again(device, self._dice.uniform(*_AGAIN_S))
        elif code == TRY_LATER:
            self.tally.busy += 1
            self._again(device, self._dice.uniform(*_BUSY_S))
        elif device.talker is None and now - device.since >= IDLE_S:
            self.tally.hung_up += 1
            self._again(device, self._dice.uniform(0.0, 1.0))
        else:
            self.tally.lost += 1
            self.tally.error(why)
            self._again(device, self._dice.uniform(*_AGAIN_S))

    # ------------------------------------------------------------ inside

    def _new(self, number: int) -> Member:
        scenario = self._scenario
        if scenario.transport is Transport.PULL4G:
            form = Form(scenario.codec, framed=scenario.framed)
            return Fetcher(self, number, form, greets=scenario.behaviour is Behaviour.CHURN)
        return Device(self, number)

    def _failed(self, device: Member, why: str) -> None:
        """No connection came about."""
        device.state = State.AWAY
        self._tried(device)
        if why == BUSY:
            self.tally.busy += 1
            self._again(device, self._dice.uniform(*_BUSY_S))
            return
        self.tally.attempted += 1
        self.tally.error(why)
        device.failures += 1
        longest_s = min(_LONGEST_S, 2.0 ** min(device.failures, 10))
        self._again(device, self._dice.uniform(longest_s / 2, longest_s))

    def _tried(self, device: Member) -> None:
        if not device.tried:
            device.tried = True
            self.tally.untried -= 1
            if not self.tally.untried:
                self.tally.ramp_s = time.monotonic() - self._ramp_at

    def _again(self, device: Member, after_s: float) -> None:
        heapq.heappush(self._later, (time.monotonic() + after_s, device.number, device))

    def _beat(self) -> None:
        """See what is due."""
        now = time.monotonic()
        late_s = max(0.0, now - self._due - _LAG_GRACE_S)
        self.tally.lag.add(late_s * 1000)
        self.tally.worst_lag_ms = max(self.tally.worst_lag_ms, late_s * 1000)
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[2])
        while self._leaving and self._leaving[0][0] <= now:
            _, since, device = self._leaving.popleft()
            if device.since == since:  # and not cut off and come back in between
                device.hang_up()
        self._connect_some(now)
        self._beats += 1
        if self._beats % _SWEEP_BEATS == 0:
            self._sweep(now)
        self._due = time.monotonic() + BEAT_S
        self._timer = asyncio.get_running_loop().call_later(BEAT_S, self._beat)

    def _connect_some(self, now: float) -> None:
        """Let as many connect as the rate allows."""
        rate = self._plan.connects_per_s
        self._allowance += rate * min(now - self._connected_at, _BURST_S)
        self._connected_at = now
        while self._waiting and self._allowance >= 1:
            self._allowance -= 1
            device = self._waiting.popleft()
            device.since = time.monotonic()
            device.state = State.CONNECTING
            self._dialling[device] = asyncio.create_task(self._dial(device))
        # What was not needed is not saved up.
        self._allowance = min(self._allowance, 1.0)

    async def _dial(self, device: Member) -> None:
        try:
            why = await self._dialer.dial(device)
        finally:
            self._dialling.pop(device, None)
        if why and not self._closing:
            self._failed(device, why)

    def _sweep(self, now: float) -> None:
        """Give up what has taken too long."""
        for device, task in self._dialling.items():
            if now - device.since > CONNECT_TIMEOUT_S:
                task.cancel()
        while self._greeting:
            device = next(iter(self._greeting))
            if now - device.since <= CONNECT_TIMEOUT_S:
                return
            device.hang_up(NO_HELLO)
