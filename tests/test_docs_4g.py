"""docs/4g.md and its Chinese twin say what the 4G pull transport does: their bytes, numbers, pictures and device."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mynah.audio import credit
from mynah.config import Settings
from mynah.config.server import Pull4g
from mynah.net import pull_device, pull_download, pull_reply, pull_upload, tcp_pull4g
from mynah.providers.tts.fake import babble
from mynah.wire import pull4g as w
from mynah.wire import pull4g_words as words
from mynah.wire.ota import PULL4G, Pull4gSettings
from tests.servers import app

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ROOT / "docs" / "4g.md", ROOT / "docs" / "zh" / "4g.md"
PICTURES = ROOT / "docs" / "images"
BOTH = pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["en", "zh"])

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+(?: \d{3})*")


def read(page: Path) -> str:
    return page.read_text("utf-8")


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module(name)


def tables(page: Path) -> list[list[list[str]]]:
    """Return the cells of all tables, heads included; cells are parted by bars with blanks around."""
    found: list[list[list[str]]] = []
    before = ""
    for line in FENCE.sub("", read(page)).splitlines():
        if line.startswith("|") and not set(line) <= set("|-: "):
            if not before.startswith("|"):
                found.append([])
            found[-1].append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        before = line
    return found


def table(page: Path, rows_after_head: str) -> list[list[str]]:
    """Return the table (without its head) whose first row begins with this on the English page."""
    place = next(i for i, rows in enumerate(tables(ENGLISH)) if rows[1][0] == rows_after_head)
    return tables(page)[place][1:]


# ---------------------------------------------------------------- the two pages


def test_both_pages_have_the_same_sections_blocks_pictures_and_marks() -> None:
    shapes: list[Any] = []
    for page in (ENGLISH, CHINESE):
        prose = FENCE.sub("", read(page))
        shapes.append((
            re.findall(r"^(#+) ", prose, re.MULTILINE),
            re.findall(r"^<!-- .+ -->$", prose, re.MULTILINE),
            [language for language, _ in FENCE.findall(read(page))],
            [text for language, text in FENCE.findall(read(page)) if language != "text"],
            [name.replace(".zh.", ".") for name in re.findall(r"images/(\S+\.svg)\)", prose)],
        ))  # fmt: skip
    assert shapes[0] == shapes[1]


def test_both_pages_have_the_same_tables() -> None:
    def codes(page: Path) -> list[list[list[list[str]]]]:
        """What stands in code style in each cell, the same in every language."""
        return [[[sorted(re.findall(r"`([^`]+)`", cell)) for cell in row] for row in t] for t in tables(page)]

    assert codes(ENGLISH) == codes(CHINESE)


@BOTH
def test_bytes_and_volumes_are_those_of_the_code(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = script("write_4g", monkeypatch)
    marked = {name for _, name, _ in writer.MARK.findall(read(page))}
    assert marked == set(writer.PARTS)
    language = "en" if page == ENGLISH else "zh"
    assert writer.rendered(read(page), language) == read(page), "run scripts/write_4g.py"


def test_pictures_are_what_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = script("draw_4g", monkeypatch).pictures()
    assert {path.name for path in PICTURES.glob("4g-*")} == set(pictures)
    for name, svg in pictures.items():
        assert read(PICTURES / name) == svg, "run scripts/draw_4g.py"
        assert f"images/{name})" in read(CHINESE if ".zh." in name else ENGLISH)


# ---------------------------------------------------------------- what the bytes mean


def shown_bytes(mark: str) -> list[tuple[str, bytes]]:
    """Return what a block shows: who sends, and what. Of an event nothing is sent."""
    block = read(ENGLISH).partition(f"<!-- 4g {mark} -->")[2]
    (_, text) = FENCE.findall(block)[0]
    sent: list[tuple[str, bytes]] = []
    for row in text.splitlines():
        head, piece = row[0], bytes.fromhex(row[2:49]) if row[0] != "⚡" else b""
        if head == " ":
            sent[-1] = (sent[-1][0], sent[-1][1] + piece)
        else:
            sent.append((head, piece))
    return sent


def understood(mark: str) -> list[tuple[str, Any]]:
    """Let server and device read a block. A lost link begins new streams."""
    events: list[tuple[str, Any]] = []
    server, device = w.ServerStream(), w.DeviceStream()
    for head, data in shown_bytes(mark):
        if head == "⚡":
            server, device = w.ServerStream(), w.DeviceStream()
        heard = server.feed(data) if head == "→" else device.feed(data)
        events += [(head, event) for event in heard]
    return events


def test_the_plain_turn_shown_is_understood() -> None:
    device = "a1:b2:c3:d4:e5:f6"
    assert understood("plain") == [
        ("→", w.Start(device, w.Options())),
        ("→", w.Audio(bytes.fromhex("0100feff03000500"))),
        ("→", w.RecordingComplete()),
        ("→", w.Request(device, w.Options())),
        ("←", w.AudioStart()),
        ("←", w.Audio(bytes.fromhex("10002100f3ffe0ff"))),
        ("←", w.AudioEnd(final=False)),
        ("→", w.Request(device, w.Options())),
        ("←", w.AudioStart()),
        ("←", w.AudioEnd(final=False)),
        ("→", w.Interrupt(device, w.Options())),
        ("→", w.KeepAlive()),
        ("→", w.RecordingComplete()),
        ("←", w.Failed(w.ErrorCode.NO_SESSION, "send SESSION_START first")),
    ]


def test_the_framed_turn_shown_is_understood_and_loses_nothing() -> None:
    events = understood("framed")
    assert not [event for _, event in events if isinstance(event, w.Malformed | w.Failed | w.Unknown)]
    told = [event for head, event in events if head == "←"]
    assert b"".join(event.data for event in told if isinstance(event, w.Audio)).hex() == "10002100f3ffe0ff"
    assert told[-1] == w.AudioEnd(final=True)
    again = [event for head, event in events if head == "→"][-1]
    assert again.options == w.Options(codec=w.Codec.ADPCM, framed=True, offset=5)


def test_the_modem_is_told_the_same_bytes() -> None:
    (_, text) = FENCE.findall(read(ENGLISH).partition("<!-- 4g modem -->")[2])[0]
    sent = re.findall(r"AT\+MIPSEND=0,(\d+),([0-9A-F]+)", text)
    received = re.findall(r'"rtcp",0,(\d+),([0-9A-F]+)', text)
    for size, digits in sent + received:
        assert len(bytes.fromhex(digits)) == int(size)
    assert [type(event) for event in w.ServerStream().feed(bytes.fromhex(sent[0][1]))] == [w.Request]
    heard = w.DeviceStream().feed(bytes.fromhex(received[0][1]))
    assert heard == [w.AudioStart(), w.AudioEnd(final=False)]


# ---------------------------------------------------------------- tables

LIMITS = [
    [words.MAX_LINE_BYTES],
    [words.MAX_TEXT_LINE_BYTES],
    [pull_upload.MAX_S, pull_upload.MAX_BYTES / 1e6],
    [credit.BURST_S / credit.PCM_PART, credit.BURST_S],
    [pull_device.UPLOAD_LOST_S],
    [pull_download.HOLD_S * 1000],
    [Pull4g().lead_ms],
    [pull_reply.KEPT_S],
    [pull_reply.MAX_REPLY_BYTES / 1e6],
    [pull_device.GONE_S],
    [tcp_pull4g.IDLE_S],
    [tcp_pull4g.FLOOD_FRAMES],
    [tcp_pull4g.FLOOD_UNITS, tcp_pull4g.TURN_UNITS],
]


@BOTH
def test_limits_are_those_of_the_code(page: Path) -> None:
    rows = table(page, "a line, a control frame")
    told = [[float(number) for number in NUMBER.findall(re.sub(r"`[^`]+`", "", row[1]))] for row in rows]
    assert told == LIMITS
    assert f"{tcp_pull4g.FLOOD_WINDOW_S:g} " in rows[-1][0]


@BOTH
def test_numbers_in_the_text_are_those_of_the_code(page: Path) -> None:
    text = " ".join(read(page).split())
    assert f"{tcp_pull4g.SETTLE_S:g} " in text
    assert credit.FILL_RATE / credit.PCM_PART == 4, "four times real time"
    assert Settings().server.pull4g_port == 10002
    assert "10002" in text
    bytes_ahead = (16000 * 2 * 4, 16000 // 2 * 4, 32_000 // 8 * 4)
    kilobytes = [f"{size // 1000} KB" for size in bytes_ahead]
    assert all(size in text for size in kilobytes)


@BOTH
def test_every_error_code_option_and_setting_is_told(page: Path) -> None:
    assert {row[0].strip("`") for row in table(page, "`bad_command`")} == {code.value for code in w.ErrorCode}
    options = {name for row in table(page, "`token`, `client`") for name in re.findall(r"`(\w+)`", row[0])}
    sent = words.command(
        words.SESSION_START, "a1b2c3d4e5f6", w.Options("t", w.Codec.ADPCM, 8000, True, True, 1, "c"), False
    )
    assert options == set(re.findall(r";(\w+)=", sent.decode()))
    codecs = next(row for row in table(page, "`token`, `client`") if row[0] == "`codec`")[2]
    assert {codec.value for codec in w.Codec} <= set(re.findall(r"`(\w+)`", codecs))
    for name in Pull4g.model_fields:
        assert f"`server.pull4g.{name}" in read(page)


@BOTH
def test_what_the_ota_address_tells_is_told(page: Path) -> None:
    (told,) = [part for part in read(page).split("\n\n") if "?transport=" in part]
    assert f"`?transport={PULL4G}`" in told
    assert set(Pull4gSettings.__struct_fields__) <= set(re.findall(r"`(\w+)`", told))


@BOTH
def test_every_line_of_the_protocol_is_told(page: Path) -> None:
    lines = (
        words.SESSION_START, words.RECORDING_COMPLETE, words.REQUEST_AUDIO, words.INTERRUPT, words.SESSION_READY,
        words.AUDIO_START, words.AUDIO_END, words.ERROR, words.STT, words.SENTENCE,
    )  # fmt: skip
    assert not [line for line in lines if f"`{line.decode()}" not in read(page)]
    assert {row[0].strip("`") for row in table(page, "`1`")} == {str(int(kind)) for kind in words.FrameType}


# ---------------------------------------------------------------- what is shown works

QUICK = ("TTS.FakeTTS.seconds=0.5",)
"""Short sentences: nobody has to wait for a long answer to be played."""


def save(path: Path, pcm: bytes) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(pcm)


async def test_the_device_shown_talks_to_a_server(tmp_path: Path) -> None:
    (program,) = [text for language, text in FENCE.findall(read(ENGLISH)) if language == "python"]
    assert len([line for line in program.splitlines() if line]) < 30, "twenty lines, or so"
    question, answer = tmp_path / "question.wav", tmp_path / "answer.wav"
    save(question, babble(1.0))
    async with app(tmp_path, *QUICK) as (_, at):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, "127.0.0.1", at.pull4g.rpartition(":")[2], str(question), str(answer),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    with wave.open(str(answer)) as file:
        pcm = file.readframes(file.getnframes())
    assert len(pcm) % 1920 == 0, "whole frames of 60 ms, and no line of text among them"
    assert b"AUDIO" not in pcm
    assert len(pcm) >= 3 * 16000, "three sentences of half a second"
    assert max(pcm[1::2]) > 0, "sound"


async def read_until(
    reader: asyncio.StreamReader, stream: w.DeviceStream, wanted: Callable[[list[w.ServerEvent]], bool]
) -> list[w.ServerEvent]:
    events: list[w.ServerEvent] = []
    async with asyncio.timeout(20):
        while not wanted(events):
            data = await reader.read(65536)
            assert data, "the connection was closed"
            events += stream.feed(data)
    return events


async def test_a_recording_goes_on_as_is_told(tmp_path: Path) -> None:
    """`from=` with what was sent, then with what the server tells, then the rest: nothing is missing or comes twice."""
    pcm, chip = babble(1.0), "a1b2c3d4e5f6"
    arrived, sent = 9000, 12000

    def has_count(events: list[w.ServerEvent]) -> bool:
        return any(isinstance(event, w.Received) for event in events)

    def start(offset: int | None, framed: bool) -> bytes:
        return w.device_start(chip, w.Options(framed=True, text=True, offset=offset), framed)

    async with app(tmp_path, *QUICK) as (_, at):
        port = int(at.pull4g.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start(None, False) + w.device_audio(pcm[:arrived], True))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()  # the other 3000 bytes never reach the server
        await writer.wait_closed()

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        stream = w.DeviceStream()
        writer.write(start(sent, False))
        told = await read_until(reader, stream, has_count)
        assert told[-1] == w.Received(arrived)
        writer.write(start(arrived, True))
        told = await read_until(reader, stream, has_count)
        assert told[-1] == w.Received(arrived)
        writer.write(w.device_audio(pcm[arrived:], True) + w.device_complete(True))
        heard = w.Heard("What time is it?")
        told = await read_until(reader, stream, lambda events: heard in events)
        assert w.Received(len(pcm)) in told
        writer.close()
        await writer.wait_closed()
