from __future__ import annotations

from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from mynah.config import load
from mynah.net.address import RequestOrigin
from mynah.net.placement import FixedAddresses, OwnAddress, placement_of
from tests.servers import app

NODES = tuple(f"ws://node{number}:8000/xiaozhi/v1/" for number in range(4))
DEVICES = [f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}" for number in range(4000)]
ORIGIN = RequestOrigin({"host": "box:8003"}, "10.0.0.9", "10.0.0.2")


def test_devices_are_spread_evenly_and_stay() -> None:
    placement = FixedAddresses(NODES)
    chosen = {device: placement.websocket_url(device, ORIGIN) for device in DEVICES}
    assert chosen == {device: placement.websocket_url(device, ORIGIN) for device in DEVICES}
    assert min(Counter(chosen.values()).values()) > 900  # of 1000 on average


def test_only_devices_of_a_node_that_is_gone_move() -> None:
    before, after = FixedAddresses(NODES), FixedAddresses(NODES[:3])
    for device in DEVICES:
        was, now = before.websocket_url(device, ORIGIN), after.websocket_url(device, ORIGIN)
        assert was == now or was == NODES[3]


def test_without_an_id_the_ip_address_decides() -> None:
    placement = FixedAddresses(NODES)
    peers = [RequestOrigin({}, f"10.0.0.{number}") for number in range(50)]
    assert {placement.websocket_url("", peer) for peer in peers} == set(NODES)
    assert len({placement.websocket_url("", peers[0]) for _ in range(5)}) == 1


def test_the_settings_choose() -> None:
    own = placement_of(load(None, environ={}), 8000)
    assert isinstance(own, OwnAddress)
    assert own.websocket_url("", ORIGIN) == "ws://box:8000/xiaozhi/v1/"
    fixed = placement_of(load(None, ["server.websocket=ws://a/x; wss://b/y ;"], environ={}), 8000)
    assert {fixed.websocket_url(device, ORIGIN) for device in DEVICES[:50]} == {"ws://a/x", "wss://b/y"}


async def test_a_device_is_told_its_node(tmp_path: Path) -> None:
    nodes = "server.websocket=" + ";".join(NODES)
    async with app(tmp_path, nodes) as (_, at), aiohttp.ClientSession() as http:
        told = set()
        for device in DEVICES[:20]:
            async with http.post(at.ota, json={}, headers={"Device-Id": device}) as answer:
                told.add((await answer.json())["websocket"]["url"])
        assert told <= set(NODES)
        assert len(told) > 1


@pytest.mark.parametrize("bad", ["http://x", "ws://a;http://b", "ws://" + "a" * 600])
def test_wrong_addresses_are_named(bad: str) -> None:
    from mynah.errors import ConfigError

    with pytest.raises(ConfigError, match=r"server\.websocket"):
        load(None, [f"server.websocket={bad}"], environ={})
