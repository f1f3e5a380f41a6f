"""Runs a load test: looks at the machine, starts the processes with the devices, goes up step by step, judges each."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import time
import zlib
from collections.abc import Callable
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import msgspec
import uvloop

from mynah import __version__, resources
from mynah.errors import MynahError
from mynah.sim.device import SimulatedDevice
from mynah.sim.discovery import fetch_reply
from mynah.sim.link import ConnectError
from mynah.sim.load import machine, sources, verdict
from mynah.sim.load.dial import Endpoint, Plan, asked_of, identity_of, read_reply
from mynah.sim.load.generators import Generators
from mynah.sim.load.monitor import Monitor, find_server
from mynah.sim.load.record import LoadReport, Machine, Sample, Step, Usage, Warned
from mynah.sim.load.scenario import Behaviour, Scenario, Transport
from mynah.sim.load.stock import QUESTIONS, QUESTIONS_ZH, Recording, recordings
from mynah.sim.load.tally import Tally
from mynah.sim.pull4g.codec import Form
from mynah.sim.pull4g.conversation import PullTarget, probe

DEVICES_PER_PROCESS: Final = 500
"""One process is enough for so many; more get more, as far as there are cores."""

MANY_DEVICES: Final = 5000
"""Beyond this two processes connect faster than one, also when they share a core."""

SPARE_DESCRIPTORS: Final = 200
"""Of a process, for what is no device."""

RAMP_GRACE_S: Final = 45.0
"""Beyond twice the time that the rate asks for: what an OTA address, a handshake and a hello may take in the worst
case, and some. Then the step is held with the devices that are there."""

REST_S: Final = 2.0
"""The server is watched for so long before the first device comes, and after the last one has gone."""

TALKERS_SHARE_LEAST: Final = 1
"""A scenario with talkers has one at least, however few devices a step has."""

PROBE_S: Final = 10.0
"""A server that does not answer one poll in so long is none of the pull protocol."""

_POLL_S: Final = 0.1
_SAMPLE_S: Final = 1.0
_PROBE: Final = 0xFF_FFFF
"""Number of the device that looks whether anybody answers at all."""


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What does not belong to the scenario."""

    token: str = ""
    insecure: bool = False
    """Take any TLS certificate."""
    server_pid: int | None = None
    """Process of the server on this machine; None: look for it."""
    processes: int = 0
    """With devices; 0: as many as are needed, as far as there are cores."""
    ota_once: bool = False
    """Ask the OTA address once per process instead of once per device."""
    command: str = ""
    """To do it again, for the report."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How it goes."""

    phase: str
    """``rest``, ``ramp``, ``hold`` or ``leave``."""
    step: int = 0
    steps: int = 0
    devices: int = 0
    talkers: int = 0
    tally: Tally
    """Of all processes; not to be changed."""
    sample: Sample
    finished: tuple[Step, ...] = ()
    """The steps before this one, judged."""


def talkers_of(scenario: Scenario, devices: int) -> int:
    """Return how many of so many devices talk."""
    if scenario.behaviour is Behaviour.TALK:
        return devices
    if scenario.behaviour is not Behaviour.MIXED or not scenario.talkers_share:
        return 0
    wanted = max(TALKERS_SHARE_LEAST, round(devices * scenario.talkers_share))
    return min(devices, wanted, devices if scenario.max_talkers is None else scenario.max_talkers)


def form_of(scenario: Scenario) -> Form:
    """Return the form of what devices say."""
    return Form(scenario.codec, framed=scenario.framed) if scenario.transport is Transport.PULL4G else Form()


def processes_for(devices: int, cores: int, descriptors: int) -> int:
    """Return how many processes so many devices need, each of which may have so many file descriptors."""
    wanted = min(max(1, cores - 1), math.ceil(devices / DEVICES_PER_PROCESS))
    if devices > MANY_DEVICES:
        wanted = max(wanted, 2)
    return max(wanted, math.ceil(devices / max(1, descriptors - SPARE_DESCRIPTORS)))


def ports_for(scenario: Scenario) -> int:
    """Return how many local ports are taken at once: with ``churn`` also those of connections of the last minute."""
    passing = round(60 * scenario.connects_per_s) if scenario.behaviour is Behaviour.CHURN else 0
    return max(scenario.steps) + passing


def look(target: str, scenario: Scenario, options: LoadOptions) -> Machine:
    """Look whether this machine is up to the test. Takes a second or so. Raises ConfigError for a bad address."""
    return machine.look(
        target,
        max(scenario.steps),
        processes_wanted=options.processes or None,
        connections=ports_for(scenario),
        connects_per_s=scenario.connects_per_s,
        server_pid=options.server_pid,
    )


def without_credentials(url: str) -> str:
    """Return an address as it may stand in a report: no user, no password, no query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def run(
    target: str,
    scenario: Scenario,
    options: LoadOptions,
    on_progress: Callable[[Progress], None],
) -> LoadReport:
    """Run a load test against a WebSocket or OTA address and return what came of it.

    Ctrl-C or SIGTERM ends it early, with a report of what was seen until then; a second Ctrl-C at once. Raises
    MynahError when it cannot begin: nobody answers, or the machine is not up to it.
    """
    talks = scenario.behaviour in {Behaviour.TALK, Behaviour.MIXED}
    texts = scenario.say or (QUESTIONS_ZH if scenario.language == "zh" else QUESTIONS)
    stock = recordings(texts, scenario.language, form_of(scenario)) if talks else []
    return uvloop.run(Director(target, scenario, options, on_progress).conduct(stock))


class Director:
    """One run. Use `run`, unless there is an event loop already."""

    def __init__(
        self,
        target: str,
        scenario: Scenario,
        options: LoadOptions,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._target = target
        self._server = target
        """WebSocket address, once the OTA address has told it: what answers there is another server at times."""
        self._scenario = scenario
        self._options = options
        self._on_progress = on_progress
        self._most = max(scenario.steps)
        self._churn = scenario.behaviour is Behaviour.CHURN
        self._stop = asyncio.Event()
        self._began = 0.0
        self._sampled = 0.0
        self._samples: list[Sample] = []  # one per second: a day has 86 400
        self._steps: list[Step] = []
        self._warnings: list[Warned] = []
        self._reasons: list[str] = []
        self._generators = Generators()
        self._monitor: Monitor | None = None

    def stop(self) -> None:
        """End early: the report is of what was seen until now."""
        self._stop.set()

    async def conduct(self, stock: list[Recording]) -> LoadReport:
        """Do it. ``stock`` is what talkers say. Raises MynahError."""
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        await self._probe()
        pid = self._find_server()
        options = msgspec.structs.replace(self._options, server_pid=pid)
        found = await asyncio.to_thread(look, self._server, self._scenario, options)
        fatal = [check for check in found.checks if check.fatal and not check.ok]
        if fatal:
            raise MynahError(
                "; ".join(
                    f"{one.name}: {one.found}, and it takes {one.wanted}: {one.remedy}" for one in fatal
                )
            )
        monitor = self._monitor = Monitor(pid, self._generators.pids, self._find_server)
        self._began = time.monotonic()
        self._listen_to_signals()
        try:
            await self._generators.start(self._plans(), stock)
            at_rest = await self._rest()
            await self._all_steps()
            interrupted = self._stop.is_set()
            self._note_deaths()
        finally:
            await self._generators.end()
        self._stop.clear()
        afterwards = await self._rest()
        thresholds = self._scenario.thresholds
        bottleneck, evidence = verdict.find_bottleneck(self._steps, self._samples, found)
        return LoadReport(
            version=__version__,
            started=started,
            command=self._options.command,
            target=without_credentials(self._target),
            scenario=msgspec.to_builtins(self._scenario),
            machine=found,
            steps=self._steps,
            samples=self._samples,
            warnings=sorted([*self._warnings, *monitor.warnings], key=lambda one: one.at_s),
            at_rest=at_rest,
            afterwards=afterwards,
            knee=verdict.find_knee(self._steps, thresholds, churn=self._churn),
            bottleneck=bottleneck,
            evidence=evidence,
            interrupted=interrupted,
            passed=not (reasons := self._why_not(interrupted)),
            reasons=reasons,
        )

    # ------------------------------------------------------------ before it begins

    async def _probe(self) -> None:
        """Have one device say hello: what is wrong with the address is told better once than a thousand times."""
        options, scenario = self._options, self._scenario
        identity = identity_of(_PROBE, _family(scenario.transport))
        endpoint = Endpoint(self._target)
        if urlsplit(self._target).scheme in {"http", "https"}:
            reply = await fetch_reply(
                self._target, identity, verify_tls=not options.insecure, transport=asked_of(scenario)
            )
            found = read_reply(reply, scenario.transport)
            if isinstance(found, str):
                raise ConnectError(
                    f"{without_credentials(self._target)}: {found}: devices cannot connect. "
                    "If they need an owner first, test the WebSocket address itself, "
                    "or a server that lets any device in"
                )
            endpoint = found
        self._server = endpoint.url
        if scenario.transport is Transport.PULL4G:
            await probe(
                PullTarget(
                    url=endpoint.url,
                    token=options.token or endpoint.token,
                    identity=identity,
                    form=form_of(scenario),
                    timeout_s=PROBE_S,
                    verify_tls=not options.insecure,
                )
            )
            return
        device = SimulatedDevice(identity, protocol=scenario.protocol, record=False, switch_delay_s=0.0)
        await device.open(endpoint.url, options.token or endpoint.token, verify_tls=not options.insecure)
        await device.close()

    def _find_server(self) -> int | None:
        """Return the process on this machine that talks with the devices, as far as it can be seen.

        Behind a reverse proxy of this machine it is taken to be the one that answers OTA.
        """
        if self._options.server_pid is not None:
            return self._options.server_pid
        found = find_server(self._server)
        if found is None and sources.is_on_this_machine(self._server):
            found = find_server(self._target)
        return found

    def _plans(self) -> list[Plan]:
        options, scenario = self._options, self._scenario
        processes = options.processes or processes_for(self._most, resources.whole_cores(), _descriptors())
        addresses = tuple(sources.source_addresses(self._server, ports_for(scenario)))
        return [
            Plan(
                target=self._target,
                scenario=scenario,
                ota_once=options.ota_once,
                token=options.token,
                insecure=options.insecure,
                sources=addresses,
                process=number,
                processes=processes,
                connects_per_s=scenario.connects_per_s / processes,
                family=_family(scenario.transport),
            )
            for number in range(processes)
        ]

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def asked() -> None:
            self.stop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)  # the second time it is at once

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, asked)

    # ------------------------------------------------------------ the steps

    async def _all_steps(self) -> None:
        for number, devices in enumerate(self._scenario.steps, 1):
            if self._stop.is_set():
                return
            step = await self._step(number, devices)
            judged = verdict.judge(
                step,
                self._steps,
                self._scenario.thresholds,
                churn=self._churn,
                stopped=self._stop.is_set(),
            )
            self._steps.append(judged)
            if not self._generators.alive:
                self._reasons.append("all processes with devices have ended")
                return
            if not self._steps[-1].passed and self._scenario.stop_when_failed:
                return

    async def _step(self, number: int, devices: int) -> Step:
        """Ramp up, hold, and return what was seen, not judged yet."""
        scenario, generators = self._scenario, self._generators
        talkers = talkers_of(scenario, devices)
        before = self._steps[-1].devices if self._steps else 0
        began_s = self._now()
        generators.ramp(number, devices, talkers)
        longest_s = 2 * (devices - before) / scenario.connects_per_s + RAMP_GRACE_S
        step = Step(number=number, devices=devices, talkers=talkers, began_s=began_s)

        def ramped() -> bool:
            tally = generators.tally(number)
            return tally is not None and not tally.untried

        await self._pass(longest_s, step, "ramp", ramped)
        ramp = generators.tally(number) or Tally(step=number)
        ramped_s = self._now()
        generators.hold()
        await self._pass(scenario.hold_s, step, "hold", lambda: not generators.alive)
        tally = await generators.settle(number)
        ended_s = self._now()
        self._sample(step, "hold")
        assert self._monitor is not None
        server, generator = self._monitor.usage_between(ramped_s, ended_s)
        succeeded = min(ramp.succeeded, max(0, devices - before))
        return tally.step_record(
            msgspec.structs.replace(
                step,
                ramped_s=ramped_s,
                ended_s=ended_s,
                connects_per_s=succeeded / ramp.ramp_s if ramp.ramp_s else 0.0,
                server=server,
                generator=generator,
            )
        )

    async def _pass(self, longest_s: float, step: Step, phase: str, done: Callable[[], bool]) -> None:
        """Let time pass, sampling, until it is done, it takes too long or somebody wants to end it."""
        end = time.monotonic() + longest_s
        while (left_s := end - time.monotonic()) > 0 and not self._stop.is_set() and not done():
            try:
                async with asyncio.timeout(min(_POLL_S, left_s)):
                    await self._stop.wait()
            except TimeoutError:
                pass
            self._note_deaths()
            if time.monotonic() - self._sampled >= _SAMPLE_S:
                self._sample(step, phase)

    async def _rest(self) -> Usage | None:
        """Watch the server while nothing happens."""
        assert self._monitor is not None
        nothing = Step(number=0, devices=0)
        phase = "leave" if self._steps else "rest"
        self._sample(nothing, phase)
        begin_s = self._now()
        await self._pass(REST_S, nothing, phase, lambda: False)
        self._sample(nothing, phase)
        server, _ = self._monitor.usage_between(begin_s, self._now())
        return server

    # ------------------------------------------------------------ what is seen

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _sample(self, step: Step, phase: str) -> None:
        assert self._monitor is not None
        self._sampled = time.monotonic()
        tally = (self._generators.tally(step.number) if step.number else None) or Tally()
        sample = self._monitor.sample(self._now(), tally.connected, tally.talking, tally.worst_lag_ms)
        self._samples.append(sample)
        self._on_progress(
            Progress(
                phase=phase,
                step=step.number,
                steps=len(self._scenario.steps),
                devices=step.devices,
                talkers=step.talkers,
                tally=tally,
                sample=sample,
                finished=tuple(self._steps),
            )
        )

    def _note_deaths(self) -> None:
        for text in self._generators.bereaved():
            self._warnings.append(Warned(at_s=self._now(), text=text))
            self._reasons.append(text)

    def _why_not(self, interrupted: bool) -> list[str]:
        """Return why the test did not pass; nothing when it did."""
        reasons = [*self._reasons]
        for step in self._steps:
            reasons += [f"step {step.number} ({step.devices} devices): {reason}" for reason in step.reasons]
        if interrupted:
            reasons.append("stopped before its end")
        return reasons


def _descriptors() -> int:
    """Return how many file descriptors a process with devices may have."""
    return resources.raise_descriptor_limit()


def _family(transport: Transport) -> int:
    """Return what tells the devices of this machine and transport from others: 16 bits of their names."""
    # Two tests may run against one server at once, one over each transport.
    name = socket.gethostname() + ("" if transport is Transport.WS else transport.value)
    return zlib.crc32(name.encode()) & 0xFFFF
