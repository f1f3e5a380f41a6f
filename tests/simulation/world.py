"""A world for one scenario: the real conversation engine between a simulated device and simulated services.

`run` plays a scenario on virtual time and returns all that happened, in order. Whether it should have happened so is
for `tests.simulation.invariants` to say.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

from loguru import logger

from mynah.audio.encode import Form
from mynah.audio.pacer import Pacer
from mynah.dialogue.allowance import DailyAllowance
from mynah.dialogue.answer import MODEL_DELAY
from mynah.dialogue.continuity import Conversations
from mynah.dialogue.delays import LEAST_SAMPLES, Delays
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.patience import Profiles
from mynah.dialogue.prompt import Prompt
from mynah.dialogue.record import TurnRecord
from mynah.dialogue.reminders import Agenda
from mynah.dialogue.services import DialogueSettings, Services
from mynah.dialogue.session import Session
from mynah.dialogue.speculation import Speculation
from mynah.dialogue.turn import Phase, TurnPolicy
from mynah.errors import ToolError
from mynah.providers.base import ProviderOptions, VadCapabilities
from mynah.providers.intent.function_call import FunctionCallIntent, FunctionCallOptions
from mynah.providers.memory.nomem import NoMemory
from mynah.providers.turn.guard import GuardedTurnDetector
from mynah.providers.wrap import GuardedAsr, GuardedLlm, GuardedTts
from mynah.texts import catalog, variants
from mynah.tools.base import FunctionTool, ToolResult
from mynah.tools.toolbox import Toolbox
from mynah.wire.messages import ListenMode
from tests.simulation import scenario as steps
from tests.simulation.device import WAKE_WORD, WORD_PACKETS, Device
from tests.simulation.link import SimLink, Speaker, SpyMachine, SpyVoice
from tests.simulation.record import Entry, Outcome, Told
from tests.simulation.scenario import Scenario
from tests.simulation.services import (
    FRAME,
    Acts,
    SimBatchAsr,
    SimDetector,
    SimEncoder,
    SimIngest,
    SimLlm,
    SimStreamingAsr,
    SimTts,
    Words,
)
from tests.virtual_time import VirtualRunner

DEVICE_ID = "aa:bb:cc:dd:ee:ff"
LAST_QUESTION = "qlast question"
SWEEP_S, QUIET_S = 5.0, 3.0
POLL_S = 0.02
SLOW_POLL_S = 0.06
REST_S = 90.0
"""Everything that hangs is given up before that: three tries of a recogniser, two of a model, a voice."""
EXIT = "goodbye"


class World:
    """Everything around the session."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.loop = asyncio.get_running_loop()
        self.log: list[Entry] = []
        self.faults: list[str] = []
        self.told: list[Told] = []
        self.records: list[TurnRecord] = []
        self.links: list[SimLink] = []
        self.words = Words()
        self.day = date(2026, 1, 2)
        self.chance = random.Random(scenario.seed)
        self.acts = (
            Acts(scenario.asr, steps.Asr()),
            Acts(scenario.llm, steps.Llm()),
            Acts(scenario.tts, steps.Tts()),
        )
        self.ingest = SimIngest(scenario.lag_s, self.chance, self._delivered)
        kind = SimStreamingAsr if scenario.streaming else SimBatchAsr
        self.asr: SimStreamingAsr | SimBatchAsr = kind(self.acts[0], self.words)
        self.llm = SimLlm(self.acts[1], lambda request: self.note("llm", len(self.links), request))
        self.tts = SimTts(self.acts[2])
        self.encoders: list[SimEncoder] = []
        self.tools_running = 0
        self._heard: dict[tuple[object, int], int] = {}
        self._ears: dict[object, SimLink] = {}
        self.pacer = Pacer()
        self.outbox = Outbox(self._find)
        self.agenda = Agenda(self.outbox.announce)
        self.services = self._services()
        self.device = Device(scenario.mode, scenario.rtt_s, self.words, self._connect)
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def _services(self) -> Services:
        scenario = self.scenario
        guarded_tts = GuardedTts(self.tts)
        policy = TurnPolicy.from_phrases([WAKE_WORD], [EXIT], scenario.greeting, scenario.judge)
        self.voice = voice = SpyVoice(guarded_tts, self.pacer, self._encoder)  # type: ignore[arg-type]
        delays = Delays()
        if scenario.slow_model:
            for _ in range(LEAST_SAMPLES):
                delays.note(MODEL_DELAY.format(self.llm.name), 3.0)
                delays.note("tool slow", 3.0)
            for phrase in variants("filler", "en"):
                call = self.tts.new_call(phrase)
                call.encoded, call.open = call.frames, False
                frames = tuple(FRAME.pack(call.number, index) for index in range(call.frames))
                voice.cache.put(voice.key(voice.words(phrase), "en"), frames)
        detector = None
        if scenario.detector:
            detector = GuardedTurnDetector(SimDetector(scenario.detector), lambda error: None)
        return Services(
            settings=DialogueSettings(
                "en", policy, 16000, farewell_prompt="Say goodbye." if scenario.asked_farewell else ""
            ),
            ingest=self.ingest,  # type: ignore[arg-type]
            asr=GuardedAsr(self.asr),
            vad=VadCapabilities(min_silence_ms=300),
            llm=GuardedLlm(self.llm),
            voice=voice,
            toolbox=Toolbox(self._tools()),
            intent=FunctionCallIntent("intent", FunctionCallOptions(type="function_call")),
            observer=self,
            now=lambda: datetime(2026, 1, 2, 15, 4, tzinfo=UTC),
            prompt=Prompt("en", "You are Mynah."),
            memory=NoMemory("nomem", ProviderOptions(type="nomem")),
            conversations=Conversations(100_000, "en", 1800.0, self.loop.time),
            allowance=DailyAllowance(scenario.allowance, lambda: self.day),
            profiles=Profiles(),
            speculation=Speculation(bool(scenario.speculation)),
            delays=delays,
            reminders=self.agenda.of,
            turn_detector=detector,
        )

    def _encoder(self, _: Form) -> SimEncoder:
        self.encoders.append(SimEncoder())
        return self.encoders[-1]

    def _tools(self) -> tuple[FunctionTool, ...]:
        async def use(name: str, asked: str) -> str:
            self.note("tool", len(self.links), name, asked)
            self.tools_running += 1
            try:
                await asyncio.sleep(2.0 if name == "slow" else 0.05)
            finally:
                self.tools_running -= 1
            return f"{name} was used"

        async def quick(asked: str) -> str:
            return await use("quick", asked)

        async def slow(asked: str) -> str:
            return await use("slow", asked)

        async def broken(asked: str) -> str:
            await use("broken", asked)
            raise ToolError("this tool is broken")

        async def leave(asked: str) -> ToolResult:
            return ToolResult(await use("leave", asked), end_session=True)

        async def direct(asked: str) -> ToolResult:
            await use("direct", asked)
            return ToolResult("Direct answer that a tool gave.", direct=True)

        return tuple(FunctionTool(tool, tool.__name__) for tool in (quick, slow, broken, leave, direct))

    # -- SessionObserver

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        self.note("opened", len(self.links), None)

    def on_turn(self, record: TurnRecord) -> None:
        self.records.append(record)

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        pass

    # -- what happened

    def note(self, kind: str, session: int, what: Any, more: Any = None) -> None:
        self.log.append(Entry(self.loop.time(), kind, session, what, more))

    def fault(self, text: str) -> None:
        self.faults.append(text)

    def encoded(self) -> list[int]:
        """How much the voice has given so far, by request to it."""
        return [call.encoded for call in self.tts.calls]

    def divided(self) -> dict[str, int]:
        """Words of which several recordings of one connection have a part each, and how many."""
        found: dict[str, int] = {}
        for link in self.links:
            for number, recordings in link.recordings.items():
                if len(recordings) > 1:
                    word = self.words.words[number]
                    found[word] = max(len(recordings), found.get(word, 0))
        return found

    def _delivered(self, packet: bytes, stream: object) -> None:
        """Write down each word that reaches an open ear as a whole, while the server listens."""
        link = self._ears.setdefault(stream, self.links[-1])
        if packet[:1] != b"w" or link.session is None or link.session.phase is not Phase.LISTENING:
            return
        number = int(packet[1:])
        count = self._heard.get((stream, number), 0) + 1
        self._heard[stream, number] = count
        if count == WORD_PACKETS and number in self.device.whole:
            self.note("word", link.number, self.words.words[number])

    # -- connections

    @property
    def link(self) -> SimLink | None:
        return self.links[-1] if self.links else None

    @property
    def phase(self) -> Phase:
        link = self.link
        return link.session.phase if link is not None and link.session is not None else Phase.CLOSED

    @property
    def machine(self) -> SpyMachine | None:
        link = self.link
        machine = link.session._machine if link is not None and link.session is not None else None
        return machine if isinstance(machine, SpyMachine) else None

    def _connect(self) -> SimLink:
        older = self.link
        link = SimLink(self, len(self.links) + 1)
        self.links.append(link)
        link.session = Session(link, self.services, DEVICE_ID)
        machine = SpyMachine(self.services.settings.policy, self, link.number)
        link.session._machine = link.session._work._turns = machine
        if older is not None:
            older.close()
        return link

    def _find(self, device_id: str) -> Speaker | None:
        link = self.link
        if link is None or link.closed or link.session is None:
            return None
        talking = link.session.greeted and link.session.phase is not Phase.CLOSED
        return Speaker(self, link) if talking else None

    def _sweep(self) -> None:
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
        link = self.link
        if link is None or link.closed or link.session is None or link.session.phase is Phase.CLOSED:
            return
        link.session.check_quiet(self.loop.time())
        if self.outbox.holds(DEVICE_ID) and self._find(DEVICE_ID) and link.session.quiet_s >= QUIET_S:
            self.outbox.hand_over(DEVICE_ID)

    # -- the course of events

    async def play(self) -> None:
        """Do all steps, ask a last question, end, and look what is left."""
        self.device.connect()
        for step in self.scenario.steps:
            await self._do(step)
        await self._until("said", 60.0)
        for acts in self.acts:
            acts.heal()
        if self.device.mode == "manual":
            self.device.release()
        if any(act.fault == "endless" for act in self.scenario.llm):
            self.device.interrupt()
        await self._come_to_rest()
        await self._ask_last_question()
        await self._end()

    async def _do(self, step: steps.Step) -> None:  # noqa: C901, PLR0912 - one line for each kind of step
        device = self.device
        match step:
            case steps.Wait(s):
                await asyncio.sleep(s)
            case steps.Until(what, s):
                await self._until(what, s)
            case steps.Speak():
                device.speak(step)
            case steps.Begin():
                device.begin()
            case steps.Release():
                device.release()
            case steps.Restart(mode):
                device.restart(mode or device.own_mode)
            case steps.Wake():
                device.wake()
            case steps.Type(words):
                device.type(words)
            case steps.Interrupt():
                device.interrupt()
            case steps.Drop(late_s):
                self._drop(late_s)
            case steps.Connect():
                device.connect()
            case steps.Leave():
                device.leave()
            case steps.Announce(words, wait_s):
                self.outbox.announce(DEVICE_ID, words, wait_s)
            case steps.Notify():
                link = self.link
                if link is not None and not link.closed and link.session is not None:
                    link.session.alert("Note", "Something to see.", "neutral")

    def _drop(self, late_s: float) -> None:
        link = self.link
        self.device.lose()
        if link is None or link.closed:
            return
        if late_s:
            link.lost = True
            self.loop.call_later(late_s, lambda: None if link.closed else link.end())
        else:
            link.end()

    async def _until(self, what: str, s: float) -> bool:
        holds = partial(CONDITIONS[what], self)
        until = self.loop.time() + s
        while not holds():
            if self.loop.time() >= until:
                return False
            await asyncio.sleep(SLOW_POLL_S if what in ("rest", "said") else POLL_S)
        return True

    async def _come_to_rest(self) -> None:
        until = self.loop.time() + REST_S
        calm = 0
        while calm < 4:
            await asyncio.sleep(0.3)
            calm = calm + 1 if CONDITIONS["rest"](self) else 0
            if self.loop.time() > until:
                machine = self.machine
                self.fault(
                    f"does not come to rest: {self.phase.value}, held {machine is not None and machine.held}"
                )
                return

    async def _ask_last_question(self) -> None:
        self.day = date(2026, 1, 3)  # an allowance that was used up begins anew
        device = self.device
        device.begin()
        if device.state == "speaking":  # the click ended an announcement
            await self._until("mic", 5.0)
            device.begin()
        if not await self._until("mic", 5.0):
            self.fault(
                f"the microphone does not open any more: device {device.state}, server {self.phase.value}"
            )
            return
        await asyncio.sleep(0.1)
        begun = len(self.log)
        self.note("last", len(self.links), None)
        device.speak(steps.Speak(LAST_QUESTION))
        await self._until("said", 10.0)
        await asyncio.sleep(0.1)
        if device.mode == "manual":
            device.release()
        await asyncio.sleep(1.0)
        await self._until("rest", 20.0)
        answered = any(
            entry.kind == "llm" and entry.what.user.endswith(LAST_QUESTION) for entry in self.log[begun:]
        )
        if not answered or not any(entry.kind == "frame" for entry in self.log[begun:]):
            self.fault(f"the last question is not answered: device {device.state}, server {self.phase.value}")

    async def _end(self) -> None:
        await asyncio.sleep(3.0)
        if self.phase is Phase.IDLE:
            self._check_nothing_left("an idle session")
        self.device.end()
        self._sweeper.cancel()
        link = self.link
        if link is not None and not link.closed:
            self.device.lose()
            link.end()
        self.outbox.close()
        self.agenda.close()
        await asyncio.sleep(1.0)
        self._check_nothing_left("a session that has ended")

    def _check_nothing_left(self, who: str) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if tasks:
            self.fault(f"{who} has tasks: {sorted(task.get_coro().__qualname__ for task in tasks)}")  # type: ignore[union-attr]
        own = {"_sweep", "_tick" if self.device._ticker else "_sweep", "Announcement", "Outbox._expire"}
        timers = [
            handle
            for handle in self.loop._scheduled  # type: ignore[attr-defined]
            if not handle.cancelled() and getattr(handle._callback, "__name__", "") not in own | {"_expire"}
        ]
        if timers:
            self.fault(f"{who} has timers: {timers}")
        if self.ingest.open_streams:
            self.fault(f"{who} has {self.ingest.open_streams} streams in the ingest")
        if isinstance(self.asr, SimStreamingAsr) and self.asr.open_streams:
            self.fault(f"{who} has {self.asr.open_streams} streams in the recogniser")
        if any(request.open for request in self.llm.requests):
            self.fault(f"{who} has an open request to the language model")
        if any(call.open for call in self.tts.calls):
            self.fault(f"{who} has an open request to the voice")
        if not all(encoder.closed for encoder in self.encoders):
            self.fault(f"{who} has an encoder")
        if self.tools_running:
            self.fault(f"{who} has a tool that runs")


def _rests(world: World) -> bool:
    machine = world.machine
    if not world.device.quiet:
        return False
    if machine is None or world.phase is Phase.CLOSED:
        return True
    if world.phase is Phase.LISTENING and machine.mode is ListenMode.MANUAL and world.device.state == "idle":
        return True  # told to speak while its button was pressed, the device has forgotten about the button
    if world.outbox.holds(DEVICE_ID) or any(not told.answers for told in world.told):
        return False
    if world.phase is Phase.LISTENING:
        return not machine.hearing and not world.links[-1].speaking
    return world.phase is Phase.IDLE


CONDITIONS: dict[str, Callable[[World], bool]] = {
    **{phase.value: lambda world, phase=phase: world.phase is phase for phase in Phase},  # type: ignore[misc]
    "said": lambda world: world.device.quiet,
    "mic": lambda world: world.device.mic_open,
    "hearing": lambda world: world.machine is not None and world.machine.hearing,
    "held": lambda world: world.machine is not None and world.machine.held,
    "frame": lambda world: world.links[-1].speaking and world.links[-1].frames > 0,
    "second": lambda world: world.links[-1].speaking and world.links[-1].sentences > 1,
    "asked": lambda world: any(request.open for request in world.llm.requests),
    "tool": lambda world: world.tools_running > 0,
    "rest": _rests,
}
"""What a step can wait for."""


def run(scenario: Scenario) -> Outcome:
    """Play a scenario."""
    state = random.getstate()
    random.seed(scenario.seed)
    catalog._rotation.cache_clear()  # which of several phrases is said depends on what was said before
    logger.disable("mynah")
    try:
        with VirtualRunner() as runner:
            return runner.run(_played(scenario))
    finally:
        logger.enable("mynah")
        random.setstate(state)


async def _played(scenario: Scenario) -> Outcome:
    world = World(scenario)
    world.loop.set_exception_handler(lambda _, context: world.fault(f"unhandled: {_told(context)}"))
    try:
        await world.play()
    except Exception as error:  # noqa: BLE001 - a fault of the engine that came up in a call of the world
        world.fault(f"unhandled: {type(error).__name__}: {error}")
    kept = world.services.conversations.join(DEVICE_ID)
    stats = world.services.speculation.stats
    return Outcome(
        scenario, world.log, world.faults, list(kept.history), world.tts, world.records, world.told,
        stats.hits, stats.misses, world.divided(),
    )  # fmt: skip


def _told(context: dict[str, Any]) -> str:
    error = context.get("exception")
    return f"{type(error).__name__}: {error}" if error is not None else str(context.get("message"))
