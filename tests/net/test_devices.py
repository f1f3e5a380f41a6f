"""Who is connected: admission, silence, draining, and what waits for those who are not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from mynah.dialogue.outbox import Announcement, Delivery, Outbox
from mynah.dialogue.reminders import Agenda
from mynah.dialogue.services import Services, VisionAccess
from mynah.dialogue.session import Session
from mynah.net import devices as module
from mynah.net.devices import Devices
from mynah.net.peer import Peer
from mynah.wire.messages import Abort, Hello, Listen, ListenMode, TtsStop
from tests.conformance.test_lifecycle import masked, open_raw
from tests.fakes import VOICE, FakeLink, Script, Stage
from tests.servers import app, connect
from tests.virtual_time import virtual


async def test_a_full_server_refuses(tmp_path: Path) -> None:
    async with app(tmp_path, "server.limits.max_connections=1") as (_, at), connect(at.ws) as first:
        await first.hello()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(at.ws, "02:00:00:00:00:02"):
                pass
        assert refused.value.status == 503


async def test_silent_conversations_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    async with app(tmp_path, "close_connection_no_voice_time=0.2") as (server, at), connect(at.ws) as device:
        await device.hello()
        await device.until("close", timeout_s=3)
        assert device.close_code == 1000
        assert server.devices is not None
        async with asyncio.timeout(3):
            while len(server.devices):
                await asyncio.sleep(0.01)


async def test_draining_lets_a_reply_finish_and_admits_nobody(tmp_path: Path) -> None:
    short = 'TTS.FakeTTS={"type": "fake", "delay_ms": 10, "seconds": 0.2}'
    async with (
        app(tmp_path, short) as (server, at),
        connect(at.ws) as talking,
        connect(at.ws, "02:00:00:00:00:02") as idle,
    ):
        await talking.hello()
        await idle.hello()
        await talking.say(type="listen", state="detect", text="hi")
        await talking.until("tts", "start")
        assert server.devices is not None
        draining = asyncio.ensure_future(server.devices.drain(10))
        await idle.until("close", timeout_s=3)
        assert idle.close_code == 1001
        with pytest.raises(aiohttp.WSServerHandshakeError):
            async with connect(at.ws, "02:00:00:00:00:03"):
                pass
        await talking.until("tts", "stop")
        await talking.until("close", timeout_s=3)
        await asyncio.wait_for(draining, 3)


async def test_draining_does_not_wait_for_ever(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at), connect(at.ws) as talking:
        await talking.hello()
        await talking.say(type="listen", state="detect", text="hi")
        await talking.until("tts", "start")
        assert server.devices is not None
        await asyncio.wait_for(server.devices.drain(0.1), 4)
        await talking.until("close", timeout_s=3)


async def test_one_bad_session_does_not_end_the_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.05)
    async with app(tmp_path, "close_connection_no_voice_time=0.2") as (server, at):
        assert server.devices is not None
        async with connect(at.ws) as bad, connect(at.ws, "02:00:00:00:00:02") as good:
            await bad.hello()
            await good.hello()
            broken = next(iter(server.devices))
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda *_: None)
            with monkeypatch.context() as patch:
                patch.setattr(type(broken), "check_quiet", lambda self, now: 1 / 0)
                await asyncio.sleep(0.2)
            await good.until("close", timeout_s=3)
            await bad.until("close", timeout_s=3)
            loop.set_exception_handler(None)


async def test_a_full_server_lets_a_device_replace_itself(tmp_path: Path) -> None:
    async with app(tmp_path, "server.limits.max_connections=1") as (_, at), connect(at.ws) as older:
        await older.hello()
        async with connect(at.ws) as newer:
            await newer.hello()
            await older.until("close")


async def test_who_comes_back_all_the_time_does_not_pile_up_connections(tmp_path: Path) -> None:
    async with app(tmp_path, "server.limits.max_connections=5") as (server, at):
        assert server.devices is not None
        most = 0
        writers = []
        for _ in range(60):
            _, writer = await open_raw(at.ws + "?device-id=02:00:00:00:00:07")
            writers.append(writer)
            most = max(most, len(server.devices))
        assert most <= 4  # the new one, the one that is closing, and what TCP has not told yet
        for writer in writers:
            writer.close()


async def test_nobody_is_let_in_before_all_is_ready(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        server.devices._open = False
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(at.ws):
                pass
        assert refused.value.status == 503


async def test_a_connection_that_is_being_closed_is_nobodys(tmp_path: Path) -> None:
    async with app(tmp_path) as (server, at):
        assert server.devices is not None
        reader, writer = await open_raw(at.ws + "?device-id=02:00:00:00:00:07")
        writer.write(masked(0x81, b'{"type":"hello"}'))
        await asyncio.wait_for(reader.readexactly(2), 5)
        assert server.devices.say("02:00:00:00:00:07", "tea")
        assert server.devices.disconnect("02:00:00:00:00:07")
        await asyncio.sleep(0.05)  # it never answers the close
        assert len(server.devices) == 1
        assert not list(server.devices)
        assert not server.devices.say("02:00:00:00:00:07", "tea")
        assert not server.devices.disconnect("02:00:00:00:00:07")
        writer.close()


# ---------------------------------------------------------------- messages and reminders, on virtual time


LAMP = "02:00:00:00:00:01"


class Wire(FakeLink):
    """One connection to `Devices`, as a transport would make it."""

    def __init__(self, devices: Devices, device_id: str) -> None:
        super().__init__()
        self.devices = devices
        self.peer = Peer("192.0.2.1", "/", {}, device_id, "client", None)
        self.session = devices.open(self, self.peer)  # type: ignore[arg-type]

    def equip(self, services: Services) -> Services:
        return services

    def hello(self) -> None:
        self.session.on_message(Hello())

    def ask(self, words: str) -> None:
        self.session.on_message(Listen("detect", text=words))

    def close(self, code: int = 1000, reason: str = "") -> None:
        super().close(code, reason)
        asyncio.get_running_loop().call_soon(self.devices.closed, self)

    def drop(self) -> None:
        """The device has gone, in the middle of whatever it was."""
        self.closed = True
        self.session.on_closed()
        self.devices.closed(self)  # type: ignore[arg-type]

    @property
    def said(self) -> list[str]:
        return [word.removeprefix("say:") for word in self.story if word.startswith("say:")]


class House:
    """A server with scripted AI services, and its devices."""

    def __init__(self, script: Script | None = None, no_voice_s: float = 105.0) -> None:
        stage = Stage(script or Script(replies=[["Answer."]]), no_voice_s=no_voice_s)
        outbox = Outbox(self.find)
        agenda = Agenda(outbox.announce)
        services = msgspec.structs.replace(stage.services, reminders=agenda.of)
        self.devices = Devices(services, None, 100, lambda peer: VisionAccess("", ""), agenda, outbox)  # type: ignore[arg-type]

    def find(self, device_id: str) -> Session | None:
        return self.devices.find(device_id)

    def connect(self, device_id: str = LAMP) -> Wire:
        wire = Wire(self.devices, device_id)
        wire.hello()
        return wire

    def send(self, words: str, wait_s: float = 600.0) -> Announcement:
        return self.devices.announce(LAMP, words, wait_s)


@asynccontextmanager
async def house(script: Script | None = None, no_voice_s: float = 105.0) -> AsyncIterator[House]:
    made = House(script, no_voice_s)
    made.devices.start()
    yield made
    await made.devices.drain(0)
    made.devices.stop()


@virtual
async def test_an_idle_device_speaks_at_once() -> None:
    async with house() as home:
        wire = home.connect()
        message = home.send("Dinner!")
        assert message.state is Delivery.QUEUED
        await asyncio.sleep(0.5)
        assert message.done.result() is Delivery.SPOKEN
        await asyncio.sleep(5)
        assert wire.story == ["ServerHello", "start", "face:happy", "say:Dinner!", "audio", "stop"]


@virtual
async def test_who_has_not_said_hello_is_not_spoken_to() -> None:
    async with house() as home:
        wire = Wire(home.devices, LAMP)
        waiting, refused = home.send("a"), home.send("b", 0)
        assert (waiting.state, refused.state) == (Delivery.WAITING, Delivery.UNDELIVERED)
        await asyncio.sleep(20)
        assert waiting.state is Delivery.WAITING
        wire.hello()
        await asyncio.sleep(20)
        assert waiting.state is Delivery.SPOKEN


@virtual
async def test_what_waited_comes_after_the_first_answer_and_not_before() -> None:
    async with house() as home:
        message = home.send("Dinner!")
        await asyncio.sleep(60)
        wire = home.connect()
        wire.ask("hey mynah")
        await asyncio.sleep(2)
        wire.ask("what time is it")
        await asyncio.sleep(1)
        assert message.state is Delivery.WAITING
        await asyncio.sleep(15)
        assert wire.said[1:] == ["Answer.", "Dinner!"], "the greeting, the answer, and then what waited"
        stopped, began = wire.when(TtsStop)[1], home_time(wire, "Dinner!")
        assert module.QUIET_S <= began - stopped <= module.QUIET_S + module.SWEEP_S + 1
        assert message.done.result() is Delivery.SPOKEN


def home_time(wire: Wire, words: str) -> float:
    return next(at for at, message in wire.log if getattr(message, "text", None) == words)


@virtual
async def test_it_comes_into_no_question() -> None:
    async with house() as home:
        message = home.send("Dinner!")
        wire = home.connect()
        wire.session.on_message(Listen("start", ListenMode.MANUAL))
        for _ in range(400):  # the button is held for 24 s
            wire.session.on_audio(VOICE)
            await asyncio.sleep(0.06)
        assert (wire.said, message.state) == ([], Delivery.WAITING)
        wire.session.on_message(Listen("stop"))
        await asyncio.sleep(15)
        assert wire.said == ["Answer.", "Dinner!"]


@virtual
async def test_who_only_connects_hears_it_after_a_moment() -> None:
    async with house() as home:
        home.send("one"), home.send("two")
        wire = home.connect()
        await asyncio.sleep(2.5)
        assert wire.said == []
        await asyncio.sleep(12)
        assert wire.said == ["one", "two"]


@virtual
async def test_who_goes_before_the_quiet_moment_hears_it_next_time() -> None:
    async with house() as home:
        message = home.send("Dinner!")
        first = home.connect()
        await asyncio.sleep(1)
        first.drop()
        await asyncio.sleep(30)
        assert (first.said, message.state) == ([], Delivery.WAITING)
        second = home.connect()
        await asyncio.sleep(10)
        assert second.said == ["Dinner!"]


@virtual
async def test_what_was_queued_when_the_device_went_waits_again() -> None:
    async with house(Script(replies=[["A long answer."]], speech_s=20)) as home:
        first = home.connect()
        first.ask("tell me a story")
        await asyncio.sleep(1)
        asked, unasked = home.send("Dinner!"), home.send("Tea!", 0)
        assert asked.state is unasked.state is Delivery.QUEUED
        first.drop()
        assert (asked.state, unasked.state) == (Delivery.WAITING, Delivery.UNDELIVERED)
        second = home.connect()
        await asyncio.sleep(10)
        assert second.said == ["Dinner!"]
        assert asked.state is Delivery.SPOKEN


@virtual
async def test_interrupted_is_delivered_and_cut_off_before_the_first_sound_is_not() -> None:
    async with house(Script(speech_s=5, tts_s=0.5)) as home:
        wire = home.connect()
        heard = home.send("Dinner is ready, and it is getting cold!")
        await asyncio.sleep(2)
        wire.session.on_message(Abort())
        assert heard.done.result() is Delivery.SPOKEN
        unheard, unheard_kept = home.send("Tea!", 0), home.send("Eggs!")
        await asyncio.sleep(0.1)
        wire.session.on_message(Abort())
        assert unheard.done.result() is Delivery.UNDELIVERED
        await asyncio.sleep(30)
        assert unheard_kept.done.result() is Delivery.SPOKEN
        assert wire.said[-1] == "Eggs!"


@virtual
async def test_more_than_a_conversation_can_queue_is_told() -> None:
    async with house(Script(speech_s=20)) as home:
        home.connect()
        messages = [home.send(str(number), 0) for number in range(12)]
        assert [m.state for m in messages] == [Delivery.QUEUED] * 9 + [Delivery.UNDELIVERED] * 3


@virtual
async def test_a_newer_connection_takes_over() -> None:
    async with house(Script(replies=[["A long answer."]], speech_s=20)) as home:
        older = home.connect()
        older.ask("tell me a story")
        await asyncio.sleep(1)
        message = home.send("Dinner!")
        home.devices.agenda.of(LAMP).add(5, "Tea!")
        newer = home.connect()
        await asyncio.sleep(25)
        assert "Dinner!" not in older.said
        assert sorted(newer.said) == ["Dinner!", "Tea!"]
        assert message.state is Delivery.SPOKEN
        newer.drop()
        assert home.devices.find(LAMP) is None


@virtual
async def test_reminders_outlive_their_connection() -> None:
    async with house() as home:
        first = home.connect()
        home.devices.agenda.of(first.session.device_id).add(60, "Tea!")
        first.drop()
        await asyncio.sleep(30)
        second = home.connect()
        assert [r.text for r in home.devices.agenda.of(second.session.device_id).list()] == ["Tea!"]
        await asyncio.sleep(32)
        assert second.said == ["Tea!"]


@virtual
async def test_a_reminder_that_was_missed_says_how_late_it_is() -> None:
    async with house() as home:
        first = home.connect()
        home.devices.agenda.of(first.session.device_id).add(60, "Tea!")
        first.drop()
        await asyncio.sleep(60 + 300)
        second = home.connect()
        second.ask("what time is it")
        await asyncio.sleep(15)
        assert second.said == ["Answer.", "This was due 5 minutes ago: Tea!"]
        await asyncio.sleep(15)
        assert len(home.devices.agenda) == len(home.devices.outbox) == 0


@virtual
async def test_a_running_timer_keeps_the_connection_open_and_a_missed_one_does_not() -> None:
    async with house(no_voice_s=30) as home:
        wire = home.connect()
        home.devices.agenda.of(wire.session.device_id).add(300, "Eggs!")
        await asyncio.sleep(299)
        assert not wire.closed
        await asyncio.sleep(60)
        assert wire.closed
        assert wire.said == ["Eggs!"]


@virtual
async def test_who_tells_no_name_loses_reminders_with_the_connection() -> None:
    async with house() as home:
        wire = home.connect("")
        home.devices.agenda.of(wire.session.device_id).add(60, "Tea!")
        assert home.devices.announce(wire.session.device_id, "hi").state is Delivery.QUEUED
        wire.drop()
        assert len(home.devices.agenda) == 0
        assert home.devices.announce(wire.session.device_id, "hi", 60).state is Delivery.UNDELIVERED


@virtual
async def test_a_name_told_late_has_its_reminders() -> None:
    async with house() as home:
        home.devices.agenda.of(LAMP).add(60, "Tea!")
        wire = Wire(home.devices, "")
        home.devices._authenticator = EverybodyMay()  # type: ignore[assignment]
        assert home.devices.identify(wire, LAMP, "")  # type: ignore[arg-type]
        wire.hello()
        assert [r.text for r in home.devices.agenda.of(wire.session.device_id).list()] == ["Tea!"]
        await asyncio.sleep(65)
        assert wire.said == ["Tea!"]


class EverybodyMay:
    def check(self, *_: object, **__: object) -> EverybodyMay:
        return self

    ok = True


@virtual
async def test_another_owner_hears_nothing_of_the_last_one() -> None:
    async with house() as home:
        home.devices.agenda.of(LAMP).add(60, "Tea!")
        before = home.connect()
        before.ask("where is the key")
        await asyncio.sleep(5)
        before.drop()
        message = home.send("Secret!")
        conversations = home.devices._services.conversations
        assert len(conversations) == 1
        home.devices.forget(LAMP)
        assert len(conversations) == 0
        wire = home.connect()
        await asyncio.sleep(100)
        assert wire.said == []
        assert message.done.result() is Delivery.UNDELIVERED


@virtual
async def test_what_is_not_heard_before_the_server_stops_is_kept() -> None:
    async with house() as home:
        home.devices.agenda.of(LAMP).add(10, "due")
        home.devices.agenda.of(LAMP).add(1000, "running")
        message = home.send("Dinner!")
        await asyncio.sleep(20)
    assert message.done.result() is Delivery.UNDELIVERED
    await asyncio.sleep(1)
    assert sorted(kept.text for kept in home.devices.agenda.snapshot()) == ["due", "running"]
