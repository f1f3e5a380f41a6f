"""Points 1 to 22 of the device contract: service discovery, activation, firmware."""

from __future__ import annotations

import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from loguru import logger

from mynah.app import Addresses, App
from mynah.console.terminal import Terminal
from mynah.wire.ota import is_newer
from tests.conformance.raw_http import BODY, CLIENT, MAC, ask, boot, named
from tests.servers import app, connect, serve

STRICT = "server.auth.enabled=true"
CODE = "server.binding=code"
IMAGE = b"\xe9" + bytes(range(256)) * 1000


def put_image(data_dir: Path, version: str = "2.5.0", board: str = "bread-compact-wifi") -> None:
    folder = data_dir / "firmware"
    folder.mkdir(exist_ok=True)
    (folder / f"{board}_{version}.bin").write_bytes(IMAGE)


def terminal(server: App) -> Terminal:
    assert server.devices is not None
    return Terminal(server.devices, lambda: None, io.StringIO(), server.bindings)


@contextmanager
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level=0)
    yield lines
    logger.remove(sink)


@asynccontextmanager
async def waiting_device(tmp_path: Path) -> AsyncIterator[tuple[App, Addresses, dict[str, Any]]]:
    """A server that wants codes, and what an unknown device was told."""
    async with app(tmp_path, CODE, STRICT) as (server, at):
        yield server, at, (await boot(at.ota))["activation"]


async def test_point_01_post_and_get_with_and_without_the_slash(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        for url in (at.ota, at.ota.rstrip("/")):
            assert (await ask(url, BODY, headers=named())).json()["websocket"]["url"] == at.ws
            page = await ask(url, method="GET")
            assert page.status == 200
            assert at.ws.encode() in page.body


async def test_point_02_nothing_but_200(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        for url in (at.ota, at.ota.rstrip("/")):
            for body in (BODY, {}, b"", b"not json"):
                assert (await ask(url, body, headers=named())).status == 200


async def test_point_03_the_length_in_canonical_letters(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        answer = await ask(at.ota, BODY, headers=named())
        assert int(answer.headers["Content-Length"]) == len(answer.body) > 0
        assert "Transfer-Encoding" not in answer.headers


async def test_point_04_the_answer_is_labelled_json(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        answer = await ask(at.ota, BODY, headers=named())
        assert answer.headers["Content-Type"].split(";")[0] == "application/json"
        assert answer.json()


async def test_point_05_headers_alone_are_enough(tmp_path: Path) -> None:
    async with app(tmp_path, STRICT) as (_, at):
        for body in (b"", b'{"board":{"ssid":"my"net"}}', b"\xff\xfe", b"[1]"):
            reply = (await ask(at.ota, body, headers=named())).json()
            assert reply["firmware"] == {"version": "2.4.2", "url": ""}
            token = reply["websocket"]["token"]
            async with connect(at.ws, MAC, Client_Id=CLIENT, Authorization=f"Bearer {token}") as device:
                await device.hello()


async def test_point_06_header_names_and_macs_in_any_letters(tmp_path: Path) -> None:
    async with app(tmp_path, STRICT) as (_, at):
        for change in (str.lower, str.upper, str.title):
            headers = {change(name): value for name, value in named(change(MAC)).items()}
            token = (await ask(at.ota, b"", headers=headers)).json()["websocket"]["token"]
            async with connect(at.ws, MAC, Client_Id=CLIENT, Authorization=f"Bearer {token}") as device:
                await device.hello()


async def test_point_07_url_token_and_version_every_time(tmp_path: Path) -> None:
    async with app(tmp_path / "a") as (_, at), app(tmp_path / "b", STRICT, CODE) as (_, strict):
        for url in (at.ota, strict.ota):
            for body in (BODY, b""):
                websocket = (await ask(url, body, headers=named())).json()["websocket"]
                assert set(websocket) == {"url", "token", "version"}
                assert websocket["url"].startswith("ws://")
                assert isinstance(websocket["token"], str)
                assert type(websocket["version"]) is int
                assert 1 <= websocket["version"] <= 3


async def test_point_08_no_mqtt_where_none_is_served(tmp_path: Path) -> None:
    async with app(tmp_path) as (_, at):
        assert "mqtt" not in await boot(at.ota)


async def test_point_09_what_a_devices_flash_takes(tmp_path: Path) -> None:
    async with app(tmp_path, STRICT) as (_, at):
        long = "x" * 3000
        answer = await ask(at.ota, BODY, headers=named(long, long) | {"Host": "h" * 250})
        for key, value in answer.json()["websocket"].items():
            assert len(key) <= 15
            assert isinstance(value, str | int)
            assert len(value) < 4000 if isinstance(value, str) else -(2**31) <= value < 2**31


async def test_point_10_only_texts_and_numbers_for_the_flash(tmp_path: Path) -> None:
    async with app(tmp_path, STRICT) as (_, at):
        assert {type(value) for value in (await boot(at.ota))["websocket"].values()} == {str, int}


async def test_point_11_the_time(tmp_path: Path) -> None:
    async with app(tmp_path, "server.timezone_offset=+8") as (_, at):
        told = (await boot(at.ota))["server_time"]
        assert type(told["timestamp"]) is int
        assert abs(told["timestamp"] - time.time() * 1000) < 60_000
        assert told["timezone_offset"] == 480


async def test_point_12_every_segment_begins_with_a_digit(tmp_path: Path) -> None:
    put_image(tmp_path, "2.10")
    put_image(tmp_path, "v9.9")
    async with app(tmp_path) as (_, at):
        for version in ("2.4.2", "", "v1.2", "1..2", "abc", "99999999999999999999", "2.4.2-beta"):
            told = (await boot(at.ota, version=version))["firmware"]["version"]
            assert all(re.match(r"[0-9]{1,9}(?![0-9])", part) for part in told.split("."))


async def test_point_13_no_update_is_the_own_version_and_no_url(tmp_path: Path) -> None:
    put_image(tmp_path, "2.4.2")
    put_image(tmp_path, "9.0.0", board="bread-compact")
    async with app(tmp_path) as (_, at):
        for version in ("2.4.2", "2.4.3", "10.0"):
            assert (await boot(at.ota, version=version))["firmware"] == {"version": version, "url": ""}


async def test_point_14_no_newer_version_without_a_url(tmp_path: Path) -> None:
    put_image(tmp_path, "2.4.2")
    async with app(tmp_path) as (_, at):
        for version in ("2.4.2", "2.4.1", "2.4", ""):
            for board in ("bread-compact-wifi", "other"):
                told = (await boot(at.ota, version=version, type=board))["firmware"]
                assert told["url"] or not is_newer(told["version"], version or "0.0.0")


async def test_point_15_an_installed_image_is_not_offered_again(tmp_path: Path) -> None:
    put_image(tmp_path, "2.5.0")
    async with app(tmp_path) as (_, at):
        offered = (await boot(at.ota, version="2.4.2"))["firmware"]
        assert offered["version"] == "2.5.0"
        assert "force" not in offered
        assert (await boot(at.ota, version="2.5.0"))["firmware"] == {"version": "2.5.0", "url": ""}


async def test_point_16_no_activation_for_bound_devices_and_open_servers(tmp_path: Path) -> None:
    async with app(tmp_path / "open") as (_, at):
        assert "activation" not in await boot(at.ota)
        assert (await ask(f"{at.ota}activate", {}, headers=named())).status == 200
    async with app(tmp_path / "code", CODE, "server.auth.allowed_devices=['02:00:00:00:00:09']") as (
        server,
        at,
    ):
        code = (await boot(at.ota))["activation"]["code"]
        assert "activation" not in await boot(at.ota, device_id="02:00:00:00:00:09")
        assert "is bound as kitchen" in terminal(server).run(f"bind {code} kitchen")
        assert "activation" not in await boot(at.ota)
        assert "activation" in await boot(at.ota, device_id="02:00:00:00:00:02")
    async with app(tmp_path / "code", CODE) as (_, at):  # after a restart as well
        assert "activation" not in await boot(at.ota)


async def test_point_17_code_and_challenge_come_together(tmp_path: Path) -> None:
    async with app(tmp_path, CODE) as (_, at):
        english, chinese = await boot(at.ota), await boot(at.ota, language="zh-CN")
        activation = english["activation"]
        assert re.fullmatch(r"[0-9]{6}", activation["code"])
        assert activation["challenge"]
        assert activation["timeout_ms"] > 0
        assert activation["code"] in activation["message"]
        assert chinese["activation"]["message"] != activation["message"]
        assert chinese["activation"]["code"] == activation["code"]


async def test_point_18_202_until_bound_and_200_after(tmp_path: Path) -> None:
    async with waiting_device(tmp_path) as (server, at, activation):
        paths = (f"{at.ota}activate", f"{at.ota}activate/")
        assert (await boot(at.ota))["websocket"]["token"] == ""
        for path in paths:
            assert (await ask(path, {}, headers=named())).status == 202
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connect(at.ws, MAC, Client_Id=CLIENT):
                pass
        assert refused.value.status == 401
        terminal(server).run(f"bind {activation['code']}")
        for path in paths:
            assert (await ask(path, {}, headers=named())).status == 200
        reply = await boot(at.ota)
        assert "activation" not in reply
        token = reply["websocket"]["token"]
        async with connect(at.ws, MAC, Client_Id=CLIENT, Authorization=f"Bearer {token}") as device:
            await device.hello()
        terminal(server).run(f"unbind {MAC}")
        with pytest.raises(aiohttp.WSServerHandshakeError):  # a token of better days does not help
            async with connect(at.ws, MAC, Client_Id=CLIENT, Authorization=f"Bearer {token}"):
                pass


async def test_point_19_every_form_of_the_activation_body(tmp_path: Path) -> None:
    async with waiting_device(tmp_path) as (server, at, activation):
        flat = {"serial_number": "S1", "challenge": activation["challenge"], "hmac": "f" * 64}
        full = {"algorithm": "hmac-sha256", **flat}
        forms = ({}, flat, full, {"Payload": flat}, {"Payload": full}, b"", b"not json")
        for form in forms:
            assert (await ask(f"{at.ota}activate", form, headers=named())).status == 202
        terminal(server).run(f"bind {activation['code']}")
        for form in forms:
            assert (await ask(f"{at.ota}activate", form, headers=named())).status == 200
        for form in (flat | {"challenge": "wrong"}, {"Payload": full | {"challenge": "wrong"}}):
            assert (await ask(f"{at.ota}activate", form, headers=named())).status == 202


async def test_point_20_firmware_is_sent_whole_to_whoever_asks(tmp_path: Path) -> None:
    put_image(tmp_path)
    (tmp_path / "firmware" / "empty_9.0.bin").touch()
    async with app(tmp_path, STRICT) as (_, at):
        url = (await boot(at.ota))["firmware"]["url"]
        assert url.startswith(at.ota)
        answer = await ask(url, method="GET")
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) == len(IMAGE)
        assert "Transfer-Encoding" not in answer.headers
        assert answer.body == IMAGE
        assert (await boot(at.ota, type="empty"))["firmware"]["url"] == ""


async def test_point_21_logs_tell_no_secrets(tmp_path: Path) -> None:
    with logged() as lines:
        async with app(tmp_path, CODE, STRICT, "log.log_level=TRACE") as (server, at):
            body = BODY | {"application": {"version": "2.1.1", "elf_sha256": "5ec2e7" * 10}}
            reply = (await ask(at.ota, body, headers=named())).json()
            code, challenge = reply["activation"]["code"], reply["activation"]["challenge"]
            proof = {"Payload": {"challenge": challenge, "hmac": "beef" * 16, "serial_number": "S1"}}
            await ask(f"{at.ota}activate", proof, headers=named())
            terminal(server).run(f"bind {code}")
            await ask(f"{at.ota}activate", proof, headers=named())
            token = (await ask(at.ota, body, headers=named())).json()["websocket"]["token"]
            assert token
            for presented in (token, token[:-2] + "xx"):
                try:
                    async with connect(
                        at.ws, MAC, Client_Id=CLIENT, Authorization=f"Bearer {presented}"
                    ) as one:
                        await one.hello()
                except aiohttp.WSServerHandshakeError:
                    pass
        text = "".join(lines)
    assert MAC in text, "it is a log of this"
    for secret in ("5ec2e7", "beef" * 4, token, token[:-2], challenge, code):
        assert secret not in text


@pytest.mark.e2e
async def test_point_22_up_whenever_devices_boot(tmp_path: Path) -> None:
    with serve(tmp_path) as process:
        ota = process.ready["ota"]
        assert json.loads((await ask(ota, BODY, headers=named())).body)["websocket"]["url"], "at once"
        place = urlsplit(ota)
        slow = [await asyncio.open_connection(place.hostname, place.port) for _ in range(100)]
        try:
            replies = await asyncio.gather(
                *(boot(ota, device_id=f"02:00:00:00:00:{number:02x}") for number in range(100))
            )
            assert {reply["websocket"]["url"] for reply in replies} == {process.ready["ws"]}
        finally:
            for _, writer in slow:
                writer.close()
