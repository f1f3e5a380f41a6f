from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import ConfigError
from mynah.sim.load import sources
from mynah.sim.load.sources import host_and_port, is_loopback, is_on_this_machine, source_addresses

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere loopback has one address")


@pytest.fixture(autouse=True)
def ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """1000 local ports, whatever this machine has: 450 of one address are used."""
    (tmp_path / "range").write_text("10000\t10999\n")
    (tmp_path / "reserved").write_text("\n")
    monkeypatch.setattr(sources, "_PORTS_FILE", tmp_path / "range")
    monkeypatch.setattr(sources, "_RESERVED_FILE", tmp_path / "reserved")


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("ws://a:8000/xiaozhi/v1/", ("a", 8000)),
        ("ws://a/", ("a", 80)),
        ("wss://a/", ("a", 443)),
        ("https://[::1]/ota/", ("::1", 443)),
        ("http://user:secret@a:8003/", ("a", 8003)),
    ],
)
def test_where_an_address_points(target: str, found: tuple[str, int]) -> None:
    assert host_and_port(target) == found


@pytest.mark.parametrize("target", ["", "nonsense", "ftp://a/", "ws://a:999999/", "ws://:80/", "a:8000"])
def test_what_is_no_address_is_refused_with_an_example(target: str) -> None:
    with pytest.raises(ConfigError, match="write ws://host:port/path"):
        host_and_port(target)


def test_loopback_and_own_addresses_are_this_machine() -> None:
    assert is_loopback("ws://127.0.0.1:1/")
    assert is_loopback("ws://127.0.0.9:1/")
    assert is_loopback("http://[::1]:1/")
    assert not is_loopback("ws://192.0.2.1:1/")
    assert not is_loopback("ws://no-such-name.invalid:1/")
    assert is_on_this_machine("ws://127.0.0.1:1/")
    assert not is_on_this_machine("ws://192.0.2.1:1/")


@LINUX
def test_loopback_gets_as_many_addresses_as_ports_are_needed() -> None:
    assert source_addresses("ws://127.0.0.1:1/", 450) == [""]
    assert source_addresses("ws://127.0.0.1:1/", 451) == ["127.0.0.2", "127.0.0.3"]
    assert len(source_addresses("ws://127.0.0.1:1/", 4500)) == 10
    assert len(source_addresses("ws://127.0.0.1:1/", 10**9)) == sources.MAX_ADDRESSES


def test_other_targets_leave_the_choice_to_the_system() -> None:
    assert source_addresses("ws://192.0.2.1:1/", 10_000) == [""]
    assert source_addresses("ws://[::1]:1/", 10_000) == [""]


@LINUX
def test_every_address_can_be_connected_from() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"ws://127.0.0.1:{server.getsockname()[1]}/"
        for address in source_addresses(target, 2000):
            with socket.create_connection(server.getsockname(), 5, (address, 0)) as connection:
                assert connection.getsockname()[0] == address


def test_reserved_ports_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reserved").write_text("8080,10000-10099,10500,10990-12000\n")
    assert sources.local_ports() == 1000 - 100 - 1 - 10
    monkeypatch.setattr(sources, "_PORTS_FILE", tmp_path / "none")
    monkeypatch.setattr(sources, "_RESERVED_FILE", tmp_path / "none")
    assert sources.local_ports() == 60_999 - 32_768 + 1


@given(st.integers(1, 100_000))
def test_no_address_gets_more_than_its_share(devices: int) -> None:
    found = source_addresses("ws://192.0.2.1:1/", devices)
    assert found == [""], "not loopback"
    if sys.platform == "linux":
        found = source_addresses("ws://127.0.0.1:1/", devices)
        assert len(set(found)) == len(found)
        assert devices <= 450 * len(found) or len(found) == sources.MAX_ADDRESSES
