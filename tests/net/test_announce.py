"""The HTTP call that makes a device speak."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import config
from mynah.dialogue.outbox import MAX_WAIT_S, MAX_WORDS_CHARS, Announcement, Delivery, Outbox
from mynah.errors import ConfigError, WireError
from mynah.net.announce import (
    CALLS,
    CALLS_PER_S,
    MAX_BODY_BYTES,
    PATH,
    AnnounceService,
    SayRequest,
    parse_say,
)
from mynah.net.http import DeviceHttp
from mynah.net.ota import OtaService
from mynah.security.tokens import Authenticator, TokenIssuer
from tests.conformance.raw_http import Answer, ask

TOKEN = "correct horse battery"
LAMP = "02:00:00:00:00:01"


class House:
    """Devices that are connected; a test tells when they have spoken. Implements `Announcer`."""

    quiet_s = 10.0

    def __init__(self) -> None:
        self.connected = True
        self.said: list[str] = []
        self.told: list[Callable[[bool], None]] = []
        self.outbox = Outbox(lambda device_id: self if self.connected and device_id == LAMP else None)

    def announce(self, device_id: str, words: str, wait_s: float = 0.0) -> Announcement:
        return self.outbox.announce(device_id, words, wait_s)

    def say(self, words: str, on_done: Callable[[bool], None] | None = None) -> None:
        assert on_done is not None
        self.said.append(words)
        self.told.append(on_done)


@asynccontextmanager
async def serving(
    house: House, token: str = TOKEN, answer_s: float = 5.0
) -> AsyncIterator[Callable[..., Any]]:
    settings = config.defaults("server.auth.enabled=false")
    ota = OtaService(settings, 1, Authenticator(settings, TokenIssuer(b"0123456789abcdef")))
    service = AnnounceService(house, token, answer_s)
    http = DeviceHttp(settings, ota, lambda: True, service.routes())
    port = await http.start("127.0.0.1", 0)

    async def post(body: object, authorization: str = f"Bearer {TOKEN}") -> Answer:
        headers = {"Authorization": authorization} if authorization else {}
        return await ask(f"http://127.0.0.1:{port}{PATH}", body, headers=headers)

    try:
        yield post
    finally:
        await http.stop()
        house.outbox.close()


def message(**more: object) -> dict[str, object]:
    return {"device_id": LAMP, "text": "dinner"} | more


async def test_it_tells_when_the_device_has_begun_to_speak() -> None:
    house = House()
    async with serving(house) as post:
        asking = asyncio.ensure_future(
            post(message(device_id="02-00-00-00-00-01", text=" dinner\nis  ready "))
        )
        async with asyncio.timeout(5):
            while not house.told:
                await asyncio.sleep(0.01)
        assert not asking.done()
        house.told[0](True)
        answer = await asking
        assert (answer.status, answer.json()) == (200, {"status": "spoken"})
        assert answer.headers["Content-Type"] == "application/json"
    assert house.said == ["dinner is ready"]


async def test_a_long_conversation_is_not_waited_for() -> None:
    house = House()
    async with serving(house, answer_s=0.05) as post:
        assert (await post(message())).json() == {"status": "queued"}


async def test_devices_that_are_not_connected() -> None:
    house = House()
    house.connected = False
    async with serving(house) as post:
        assert (await post(message())).json() == {"status": "undelivered"}
        assert (await post(message(wait_s=60))).json() == {"status": "waiting"}
    assert len(house.outbox) == 0


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer é",
    ],
)
async def test_who_has_no_token_is_refused(authorization: str) -> None:
    house = House()
    async with serving(house) as post:
        answer = await post(message(), authorization)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "server.announce_token" in answer.json()["error"]
        assert TOKEN.encode() not in answer.body
    assert house.said == []


async def test_without_a_configured_token_there_is_no_such_call() -> None:
    house = House()
    async with serving(house, token="") as post:
        assert (await post(message(), "")).status == 404
        assert (await post(message(), "Bearer ")).status == 404
    assert not AnnounceService(house, "").admits("Bearer ")


def test_a_token_must_be_long() -> None:
    with pytest.raises(ConfigError, match=r"server\.announce_token is too short"):
        AnnounceService(House(), "short")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not understood"),
        (b"[]", "not understood"),
        (b"\xff", "not understood"),
        (b"[" * 8000, "not understood"),
        (b'{"device_id":"a","text":"\\ud800"}', "not understood"),
        ({"text": "x"}, "device_id"),
        ({"device_id": LAMP}, "text"),
        (message(text=5), "text"),
        (message(text=" \n\x00"), "`text` is empty"),
        (message(text="x" * (MAX_WORDS_CHARS + 1)), "length <= 1000"),
        (message(device_id=" "), "`device_id` is empty"),
        (message(wait_s=-1), "wait_s"),
        (message(wait_s=MAX_WAIT_S + 1), "wait_s"),
        (message(wait_s="soon"), "wait_s"),
        (message(wait=5), "unknown field"),
        (message(text="x" * MAX_BODY_BYTES), "larger than 8192 bytes"),
    ],
)
async def test_what_is_wrong_is_told(body: object, reason: str) -> None:
    house = House()
    async with serving(house) as post:
        answer = await post(body)
        assert answer.status == 400
        assert reason in answer.json()["error"]
    assert house.said == []


async def test_floods_are_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mynah.net.announce.CALLS", 2)
    house = House()
    async with serving(house, answer_s=0.0) as post:
        assert [(await post(message())).status for _ in range(2)] == [200, 200]
        answer = await post(message())
        assert answer.status == 429
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await post(message(), "")).status == 401, "who has no token cannot use up anybody's calls"
    assert len(house.said) == 2


def test_the_rate_is_that_of_the_bucket() -> None:
    service = AnnounceService(House(), TOKEN)
    assert [service.delay_s(100.0) for _ in range(CALLS)] == [0.0] * CALLS
    early = service.delay_s(100.0)
    assert early == pytest.approx(1 / CALLS_PER_S)
    assert service.delay_s(100.0 + early) == 0.0
    assert service.delay_s(100.0 + early) > 0.0
    assert [service.delay_s(1e6) for _ in range(CALLS)] == [0.0] * CALLS
    assert service.delay_s(1e6) > 0.0


async def test_who_hangs_up_does_not_take_the_message_back() -> None:
    house = House()
    async with serving(house) as post:
        asking = asyncio.ensure_future(post(message()))
        async with asyncio.timeout(5):
            while not house.told:
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.sleep(0.05)
        house.told[0](True)
        second = asyncio.ensure_future(post(message(text="again")))
        async with asyncio.timeout(5):
            while len(house.told) < 2:
                await asyncio.sleep(0.01)
        house.told[1](True)
        assert (await second).json() == {"status": Delivery.SPOKEN.value}


@given(st.binary(max_size=200) | st.from_type(dict[str, str]).map(lambda d: json.dumps(d).encode()))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    try:
        request = parse_say(body)
    except WireError:
        return
    assert request.device_id
    assert request.text


@given(st.text(min_size=1, max_size=MAX_WORDS_CHARS), st.floats(0, MAX_WAIT_S))
def test_what_is_read_can_be_spoken(text: str, wait_s: float) -> None:
    try:
        request = parse_say(json.dumps({"device_id": LAMP.upper(), "text": text, "wait_s": wait_s}).encode())
    except WireError as error:
        assert "empty" in str(error) or "not understood" in str(error)
        return
    assert request == SayRequest(LAMP, request.text, wait_s)
    assert request.text.isprintable()
    assert 0 < len(request.text) <= MAX_WORDS_CHARS
    request.text.encode()
