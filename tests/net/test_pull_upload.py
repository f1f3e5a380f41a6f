"""Recordings that are uploaded: nothing is lost, and nothing comes faster than a stream may take it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mynah.audio.adpcm import AdpcmDecoder
from mynah.audio.credit import MAX_DEBT_S, opus_cost_s, pcm_cost_s
from mynah.audio.ingest_stream import MAX_PENDING_PER_STREAM
from mynah.audio.opus import OpusEncoder
from mynah.dialogue.session import Session
from mynah.net import pull_upload
from mynah.net.pull_upload import MAX_S, Upload, UploadStore
from mynah.wire.pull4g import Codec
from tests.virtual_time import VirtualRunner, virtual
from tests.wire.pull4g_pieces import pieces

RATE = 16000


class Ear:
    """A session as far as it hears, with the bounds of a real stream."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.rates: set[int] = set()
        self._settled_at = 0.0
        self._burst = 0
        self._burst_at = 0.0

    @property
    def all(self) -> bytes:
        return b"".join(self.heard)

    def on_pcm(self, pcm: bytes, sample_rate: int) -> None:
        self.rates.add(sample_rate)
        self._take(pcm, pcm_cost_s(len(pcm), sample_rate))

    def on_audio(self, packet: bytes) -> None:
        self._take(packet, opus_cost_s(packet))

    def _take(self, data: bytes, cost_s: float) -> None:
        now = asyncio.get_running_loop().time()
        self._settled_at = max(self._settled_at, now) + cost_s
        assert self._settled_at - now <= MAX_DEBT_S, "a stream would have dropped this"
        self._burst = self._burst + 1 if now == self._burst_at else 1
        self._burst_at = now
        assert self._burst <= MAX_PENDING_PER_STREAM, "a stream would have had no place for this"
        self.heard.append(data)


class Recording:
    def __init__(self, codec: Codec = Codec.PCM, rate: int = RATE) -> None:
        self.ear = Ear()
        self.done: list[float] = []
        self.upload = Upload(cast(Session, self.ear), codec, rate, self._on_done)

    def _on_done(self) -> None:
        self.done.append(asyncio.get_running_loop().time())


def samples(seconds: float, rate: int = RATE) -> bytes:
    count = round(seconds * rate)
    return b"".join((number & 0xFFFF).to_bytes(2, "little") for number in range(count))


SHORT = samples(0.7)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 100_000), max_size=30), st.booleans())
def test_however_it_is_cut_every_byte_comes_in_order(cuts: list[int], adpcm: bool) -> None:
    async def main() -> None:
        one = Recording(Codec.ADPCM if adpcm else Codec.PCM)
        for piece in pieces(SHORT, cuts):
            assert one.upload.feed(piece)
        assert not one.done
        one.upload.finish()
        one.upload.finish()
        assert one.ear.all == (AdpcmDecoder().decode(SHORT) if adpcm else SHORT)
        assert one.upload.received == len(SHORT)
        assert one.upload.heard_s == pytest.approx(len(one.ear.all) / 2 / RATE)
        assert len(one.done) == 1

    with VirtualRunner() as runner:
        runner.run(main())


@pytest.mark.parametrize(
    ("rate", "size"), [(8000, 730), (16000, 730), (16000, 1), (16000, 65536), (48000, 1460)]
)
def test_a_long_recording_that_comes_at_once_waits_for_its_credit(rate: int, size: int) -> None:
    seconds = 30.0 if size > 1 else 3.0
    whole = samples(seconds, rate)

    async def main() -> None:
        began = asyncio.get_running_loop().time()
        one = Recording(rate=rate)
        for at in range(0, len(whole), size):
            assert one.upload.feed(whole[at : at + size])
        one.upload.finish()
        await asyncio.sleep(30)
        assert one.ear.all == whole
        assert one.ear.rates == {rate}
        assert len(one.done) == 1
        # 12 s at once, the rest at four times real time.
        assert one.done[0] - began == pytest.approx(max(seconds - 12, 0) / 4, abs=0.3)

    with VirtualRunner() as runner:
        runner.run(main())


@pytest.mark.parametrize("frame_ms", [10, 20, 60])
def test_packets_wait_as_well(frame_ms: int) -> None:
    silent = OpusEncoder(16000, frame_ms).encode(bytes(32 * frame_ms))

    async def main() -> None:
        one = Recording(Codec.OPUS)
        count = 20_000 // frame_ms
        for number in range(count):
            assert one.upload.feed(silent + bytes([number % 256]))
        one.upload.finish()
        await asyncio.sleep(30)
        assert len(one.ear.heard) == count
        assert one.upload.heard_s == pytest.approx(20, abs=0.06)
        assert len(one.done) == 1

    with VirtualRunner() as runner:
        runner.run(main())


@virtual
async def test_in_real_time_nothing_waits_for_long() -> None:
    one = Recording()
    for _ in range(50):
        one.upload.feed(samples(0.02))
        await asyncio.sleep(0.02)
        assert one.upload.heard_s - len(one.ear.all) / 32000 < 0.101


@virtual
async def test_a_recording_ends_after_a_minute_to_the_byte() -> None:
    one = Recording()
    minute = samples(MAX_S)
    assert one.upload.feed(minute[:-1])
    assert one.upload.feed(minute[-1:]), "exactly a minute is not too long"
    assert not one.upload.overlong
    assert not one.upload.feed(b"\x01"), "told once"
    assert one.upload.overlong
    assert one.upload.feed(b"more")
    one.upload.finish()
    await asyncio.sleep(30)
    assert one.ear.all == minute
    assert len(one.done) == 1


@virtual
async def test_packets_for_more_than_a_minute_are_dropped() -> None:
    one = Recording(Codec.OPUS)
    packet = OpusEncoder(16000, 60).encode(bytes(1920))
    told = [one.upload.feed(packet) for _ in range(1100)]
    assert told.count(False) == 1
    assert told.index(False) == 1000
    one.upload.finish()
    await asyncio.sleep(60)
    assert len(one.ear.heard) == 1000


@virtual
async def test_nor_may_it_have_more_than_ten_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull_upload, "MAX_BYTES", 1000)
    one = Recording()
    assert one.upload.feed(bytes(1000))
    assert not one.upload.feed(bytes(1))
    one.upload.finish()
    assert len(one.ear.all) >= 1000


@settings(max_examples=60)
@given(
    cut=st.integers(0, len(SHORT)),
    back=st.integers(0, 5000),
    cuts=st.lists(st.integers(0, 100_000), max_size=8),
)
def test_after_a_lost_link_what_comes_again_is_cut_off_exactly(cut: int, back: int, cuts: list[int]) -> None:
    async def main() -> None:
        one = Recording()
        one.upload.feed(SHORT[:cut])
        offset = max(cut - back, 0)
        one.upload.resume(offset)
        for piece in pieces(SHORT[offset:], cuts):
            one.upload.feed(piece)
        one.upload.finish()
        assert one.ear.all == SHORT
        assert one.upload.received == len(SHORT)

    with VirtualRunner() as runner:
        runner.run(main())


@virtual
async def test_a_second_loss_in_the_midst_of_what_comes_again() -> None:
    one = Recording()
    one.upload.feed(SHORT[:9000])
    one.upload.resume(4000)
    one.upload.feed(SHORT[4000:6000])
    one.upload.resume(5000)
    one.upload.feed(SHORT[5000:])
    one.upload.finish()
    assert one.ear.all == SHORT


@virtual
async def test_dropped_it_hands_over_nothing_more_and_keeps_no_timer() -> None:
    one = Recording()
    one.upload.feed(samples(20))
    one.upload.finish()
    before = len(one.ear.heard)
    assert not one.done
    one.upload.close()
    one.upload.feed(b"late")
    one.upload.finish()
    await asyncio.sleep(30)
    assert len(one.ear.heard) == before
    assert not one.done
    assert one.upload._timer is None


@virtual
async def test_it_knows_when_something_came_last() -> None:
    one = Recording()
    await asyncio.sleep(3)
    one.upload.feed(b"ab")
    now = asyncio.get_running_loop().time()
    assert one.upload.last_at == now
    await asyncio.sleep(1)
    one.upload.resume(2)
    assert one.upload.last_at == now + 1


def test_it_is_light() -> None:
    async def main() -> Any:
        one = Recording()
        one.upload.feed(SHORT)
        one.upload.finish()
        return one.upload

    with VirtualRunner() as runner:
        upload = runner.run(main())
    assert not upload._waiting
    assert not upload._rest


@virtual
async def test_recordings_of_all_devices_together_are_bounded() -> None:
    store = UploadStore(limit=2_000_000)
    ears = [Ear() for _ in range(8)]
    uploads = [Upload(cast(Session, ear), Codec.PCM, RATE, lambda: None, store) for ear in ears]
    minute = bytes(2 * RATE)
    taken = [sum(upload.feed(minute) for _ in range(40)) for upload in uploads]
    assert store.used < store.limit + 2 * len(minute)
    assert taken[0] == 40
    assert taken[-1] < 40, "there was no room for all of it"
    for upload in uploads:
        upload.finish()
    await asyncio.sleep(60)
    assert store.used == 0
    assert len(ears[0].all) == 40 * len(minute)


@virtual
async def test_what_nobody_listens_to_is_not_kept() -> None:
    store, told = UploadStore(), []
    upload = Upload(cast(Session, Ear()), Codec.PCM, RATE, lambda: told.append("done"), store)
    upload.feed(bytes(30 * 2 * RATE))
    assert store.used > 0
    upload.ignore()
    assert store.used == 0
    assert upload.feed(bytes(2 * RATE))
    assert store.used == 0
    upload.finish()
    await asyncio.sleep(10)
    assert told == ["done"]
