"""Codes, bound devices, and the file that keeps them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import ConfigError
from mynah.security import binding
from mynah.security.binding import BindingError, BindingFile, Bindings, BoundDevice

MAC = "aa:bb:cc:dd:ee:ff"
CLIENT = "c-1"
NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def bindings(clock: Clock, changed: Callable[[tuple[BoundDevice, ...]], None] | None = None) -> Bindings:
    return Bindings((), changed, clock)


def test_a_device_is_bound_by_the_code_it_shows(clock: Clock) -> None:
    states: list[tuple[BoundDevice, ...]] = []
    known = bindings(clock, states.append)
    offer = known.offer(MAC.upper(), CLIENT)
    assert len(offer.code) == 6
    assert offer.code.isdecimal()
    assert known.offer(MAC, CLIENT) == offer, "the same every time it is asked for"
    assert not known.is_bound(MAC, CLIENT)
    assert known.pending == 1
    device = known.bind(offer.code, "  kit\nchen ")
    assert device == BoundDevice(MAC, CLIENT, "kitchen", offer.challenge, int(NOW))
    assert known.is_bound("AA-BB-CC-DD-EE-FF", CLIENT)
    assert known.pending == 0
    assert states == [(device,)]
    with pytest.raises(BindingError, match="no device shows the code"):
        known.bind(offer.code)
    assert list(known) == [device]


def test_who_knows_only_the_mac_address_is_not_the_device(clock: Clock) -> None:
    known = bindings(clock)
    known.bind(known.offer(MAC, CLIENT).code)
    assert not known.is_bound(MAC, "another")
    assert not known.is_bound(MAC, "")
    # After its flash was erased a device has a new Client-Id and is bound anew, in place of the old entry.
    known.bind(known.offer(MAC, "another").code)
    assert known.is_bound(MAC, "another")
    assert not known.is_bound(MAC, CLIENT)
    assert len(known) == 1


def test_a_code_expires_and_is_renewed_before(clock: Clock) -> None:
    known = bindings(clock)
    first = known.offer(MAC, CLIENT)
    clock.now += binding.CODE_LIFETIME_S - binding.RENEW_S
    assert known.offer(MAC, CLIENT) == first
    clock.now += 1
    second = known.offer(MAC, CLIENT)
    assert second.challenge != first.challenge
    with pytest.raises(BindingError):
        known.bind(first.code)
    clock.now += binding.CODE_LIFETIME_S
    with pytest.raises(BindingError):
        known.bind(second.code)
    assert known.pending == 0


def test_codes_are_unique_and_bounded_the_oldest_goes(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "CODE_DIGITS", 2)
    monkeypatch.setattr(binding, "MAX_PENDING", 90)
    known = bindings(clock)
    monkeypatch.setattr(binding, "MAX_PENDING_PER_SOURCE", 90)
    codes = [known.offer(f"device-{number}", CLIENT).code for number in range(90)]
    assert len(set(codes)) == 90
    known.offer("one-more", CLIENT)
    assert known.pending == 90
    assert known.offer("device-1", CLIENT).code == codes[1]
    assert known.bind(codes[89]).device_id == "device-89"
    known.offer("device-0", CLIENT)
    assert known.pending == 90, "the one that went has a code again"


def test_who_asks_for_codes_of_invented_devices_pushes_out_only_his_own(clock: Clock) -> None:
    known = bindings(clock)
    honest = known.offer(MAC, CLIENT, "192.168.1.20")
    for number in range(binding.MAX_PENDING * 2):
        known.offer(f"invented-{number}", CLIENT, "203.0.113.1")
    assert known.pending == 1 + binding.MAX_PENDING_PER_SOURCE
    assert known.offer(MAC, CLIENT, "192.168.1.20") == honest
    assert known.bind(honest.code).device_id == MAC
    latest = known.offer(f"invented-{binding.MAX_PENDING * 2 - 1}", CLIENT, "203.0.113.1")
    assert known.bind(latest.code), "of his own the oldest went"


def test_with_many_addresses_the_one_that_has_most_gives_way(clock: Clock) -> None:
    known = bindings(clock)
    honest = known.offer(MAC, CLIENT, "192.168.1.20")
    for number in range(binding.MAX_PENDING * 2):
        known.offer(f"invented-{number}", CLIENT, f"203.0.113.{number % 200}")
        assert known.pending <= binding.MAX_PENDING
    assert known.pending == binding.MAX_PENDING
    assert known.offer(MAC, CLIENT, "192.168.1.20") == honest


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5), st.sampled_from([0, 50, 300])), max_size=80))
def test_codes_are_counted_right_whatever_happens(asked: list[tuple[int, int, int]]) -> None:
    clock = Clock()
    known = bindings(clock)
    for device, source, pause in asked:
        clock.now += pause
        offer = known.offer(f"device-{device}", CLIENT, f"source-{source}")
        assert offer == known.offer(f"device-{device}", CLIENT, "")
        if device % 7 == 0:
            known.bind(offer.code)
    assert known.pending <= 6 * binding.MAX_PENDING_PER_SOURCE
    counted = [identity for own in known._by_source.values() for identity in own]
    assert sorted(counted) == sorted(known._offers) == sorted(known._source_of)
    assert len(known._by_code) == len(known._offers)
    clock.now += binding.CODE_LIFETIME_S
    assert known.pending == 0
    assert not known._by_source


def test_as_many_devices_as_there_may_be(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "MAX_BOUND", 1)
    known = bindings(clock)
    known.bind(known.offer(MAC, CLIENT).code)
    code = known.offer("other", CLIENT).code
    with pytest.raises(BindingError, match="unbind one"):
        known.bind(code)
    known.bind(known.offer(MAC, "new client").code)
    known.unbind(MAC.upper())
    known.bind(code)
    with pytest.raises(BindingError, match="is not bound"):
        known.unbind(MAC)


def test_activation_looks_at_the_challenge_if_one_is_told(clock: Clock) -> None:
    known = bindings(clock)
    offer = known.offer(MAC, CLIENT)
    assert not known.is_activated(MAC, CLIENT, offer.challenge)
    known.bind(offer.code)
    assert known.is_activated(MAC, CLIENT, offer.challenge)
    assert known.is_activated(MAC, CLIENT, "")
    assert not known.is_activated(MAC, CLIENT, "wrong ☃")
    assert not known.is_activated("other", CLIENT, offer.challenge)


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=100))
def test_any_id_can_be_bound_and_kept(device_id: str, client_id: str, name: str) -> None:
    states: list[tuple[BoundDevice, ...]] = []
    known = Bindings((), states.append)
    known.bind(known.offer(device_id, client_id).code, name)
    again = Bindings(states[-1])
    assert again.is_bound(device_id, client_id)


def test_bindings_survive_a_restart_in_a_private_file(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "data" / "devices.json"
    file = BindingFile(path)
    assert file.read() == []
    known = Bindings(file.read(), file.save, clock)
    for number in range(20):
        known.bind(known.offer(f"02:00:00:00:00:{number:02}", CLIENT).code, "küche")
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["devices.json"], "no drafts are left"
    assert list(Bindings(BindingFile(path).read())) == list(known)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "devices.json"
    device = BoundDevice(MAC, CLIENT, "", "x", 1)
    file = BindingFile(path)
    file.save((device,))
    file.close()

    def crash(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    full = BindingFile(path)
    full.save(())
    full.close()
    assert BindingFile(path).read() == [device]
    assert [item.name for item in tmp_path.iterdir()] == ["devices.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"devices":[{"device_id":1}]}', b"[]"])
def test_a_damaged_file_is_not_taken_for_an_empty_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "devices.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"devices\.json is damaged: put back a copy, or delete it"):
        BindingFile(path).read()


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "devices.json").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        BindingFile(tmp_path / "devices.json").read()
