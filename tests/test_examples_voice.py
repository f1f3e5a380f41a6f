"""examples/voice_device.py, the whole device in one file: with the real server, and with one that does as told."""

from __future__ import annotations

import asyncio
import signal
import sys
import wave
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from mynah.audio.opus import OpusDecoder, packet_duration_ms
from mynah.audio.pcm import level_dbfs, write_wav
from mynah.sim.voice import speak
from tests.servers import ROOT, app
from tests.sim.scripted import Connection, ScriptedServer, tone

DEVICE = ROOT / "examples" / "voice_device.py"
PATIENCE_S = 60


@asynccontextmanager
async def device(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", str(DEVICE), *map(str, arguments),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ends(process: asyncio.subprocess.Process) -> tuple[int | None, list[str], str]:
    """Wait for its end; return exit code, lines on standard output and standard error."""
    out, errors = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode, out.decode().splitlines(), errors.decode()


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """A recording as people have them, with another rate than devices send."""
    write_wav(tmp_path / "question.wav", tone(0.5, 44100), 44100)
    return tmp_path / "question.wav"


async def test_a_conversation_with_the_server(tmp_path: Path, question: Path) -> None:
    answer = tmp_path / "answer.wav"
    write_wav(question, await asyncio.to_thread(speak, "what time is it"), 16000)
    settings = ("server.auth.enabled=true", "TTS.FakeTTS.seconds=0.3")
    async with app(tmp_path, *settings) as (_, place), device(place.ota, question, answer) as process:
        code, lines, errors = await ends(process)
    assert (code, errors) == (0, "")
    assert lines[0].startswith("> ")
    assert "twenty words" in " ".join(line[2:] for line in lines if line.startswith("< "))
    with wave.open(str(answer)) as wav:
        assert (wav.getframerate(), wav.getnchannels()) == (48000, 1)
        assert 0.8 < wav.getnframes() / 48000 < 1.5
        assert level_dbfs(wav.readframes(wav.getnframes())) > -40


def scripted(talk: Callable[[Connection], Awaitable[None]]) -> ScriptedServer:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode="manual")
        await connection.until("listen", state="stop")
        await talk(connection)
        await connection.drain()

    return ScriptedServer(script, token="t")


async def test_the_lamp(tmp_path: Path, question: Path) -> None:
    answers = []

    async def call(connection: Connection, method: str, params: dict[str, object]) -> None:
        payload = {"jsonrpc": "2.0", "id": len(answers), "method": method, "params": params}
        await connection.send("mcp", payload=payload)
        answers.append((await connection.until("mcp"))["payload"])

    async def talk(connection: Connection) -> None:
        await call(connection, "initialize", {})
        await call(connection, "tools/list", {"cursor": ""})
        await call(connection, "tools/call", {"name": "self.lamp.set", "arguments": {"on": True}})
        await call(connection, "tools/call", {"name": "self.lamp.set", "arguments": {"on": "maybe"}})
        await call(connection, "tools/call", {"name": "self.door.open", "arguments": {}})
        await connection.answer("Done.", 5)

    async with scripted(talk).running() as server, device(server.ota_url, question, tmp_path / "a.wav") as p:
        code, lines, errors = await ends(p)
    assert (code, errors) == (0, "")
    assert lines == ["* the lamp is on", "> what was said", "< Done."]
    assert [answer["id"] for answer in answers] == [0, 1, 2, 3, 4]
    assert answers[0]["result"]["serverInfo"]["name"] == "voice-device"
    (lamp,) = answers[1]["result"]["tools"]
    assert lamp["inputSchema"]["required"] == ["on"]
    assert answers[2]["result"]["content"] == [{"type": "text", "text": "true"}]
    assert "cannot do tools/call" in answers[3]["error"]["message"]
    assert "error" in answers[4]
    sent = server.connections[0].audio
    assert {packet_duration_ms(packet) for packet in sent} == {60}
    assert len(sent) in {8, 9, 10}  # half a second; what the codec holds back at the end may be missing
    decoder = OpusDecoder(16000)
    samples = np.frombuffer(b"".join(map(decoder.decode, sent)), "<i2")[1600:-1600]
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * 16000 / len(samples) == pytest.approx(300, abs=20)


async def test_ctrl_c_interrupts(tmp_path: Path, question: Path) -> None:
    async def talk(connection: Connection) -> None:
        await connection.send("tts", state="start")
        await connection.send("tts", state="sentence_start", text="A long story.")
        await connection.until("abort")
        await connection.send("tts", state="stop")

    async with scripted(talk).running() as server, device(server.ota_url, question, tmp_path / "a.wav") as p:
        assert p.stdout is not None
        assert await asyncio.wait_for(p.stdout.readline(), PATIENCE_S) == b"< A long story.\n"
        p.send_signal(signal.SIGINT)
        assert await ends(p) == (0, ["* interrupted"], "")
    assert (tmp_path / "a.wav").is_file()


async def test_problems_are_one_line(tmp_path: Path, question: Path) -> None:
    async def hang_up(connection: Connection) -> None:
        await connection.socket.close()

    async with scripted(hang_up).running() as server, device(server.ota_url, question, "a.wav") as process:
        assert await ends(process) == (1, [], "the server hung up before its answer was over\n")
    async with device("http://127.0.0.1:1/", question, "a.wav") as process:
        code, _, errors = await ends(process)
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("no conversation: Cannot connect")
    async with device("http://127.0.0.1:1/", tmp_path / "none.wav", "a.wav") as process:
        code, _, errors = await ends(process)
    assert code == 1
    assert "question.wav answer.wav" in errors, "how to use it"


@pytest.mark.parametrize("arguments", [(), ("http://127.0.0.1:1/",)])
async def test_the_text_client_says_how_to_use_it(arguments: tuple[str, ...]) -> None:
    code, errors = await text_client(*arguments)
    assert code == 1
    assert "text_client.py http://127.0.0.1:8003" in errors


async def test_the_text_client_says_what_is_wrong_in_one_line() -> None:
    code, errors = await text_client("http://127.0.0.1:1/", "hello")
    assert (code, errors.count("\n")) == (1, 1)
    assert errors.startswith("no conversation: Cannot connect")


async def test_the_text_client_notices_the_end() -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="detect")
        await connection.answer("Bye.", 1)

    async with ScriptedServer(script).running() as server:
        code, errors = await text_client(server.ota_url, "goodbye", "and more")
    assert code == 1
    # What it notices first depends on how far the closing has come.
    assert errors in {
        "the server has ended the conversation\n",
        "no conversation: Cannot write to closing transport\n",
    }


async def text_client(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples" / "text_client.py"), *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    code, _, errors = await ends(process)
    return code, errors
