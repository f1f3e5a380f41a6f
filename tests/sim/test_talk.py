import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import wave
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mynah.audio.pcm import write_wav
from mynah.sim import talk
from mynah.sim.camera import JPEG
from mynah.sim.conversation import Conversation, Dialect
from mynah.sim.pull4g.codec import Form
from mynah.sim.talk import MAX_PHOTO_BYTES, TalkOptions, form_of, run
from mynah.sim.timeline import TurnTimeline
from mynah.wire.messages import ListenMode
from mynah.wire.pull4g import Codec

from .scripted import Connection, Script, ScriptedServer, silent, tone
from .test_camera import Vision
from .test_json_device import answer as json_answer
from .test_json_device import greet
from .test_soundcard import FakeStream, sounddevice

__all__ = ["sounddevice"]


async def echo(connection: Connection) -> None:
    """Answers typed text, and spoken utterances that end with a released button."""
    await connection.hello()
    while True:
        message = await connection.next()
        if message["type"] == "listen" and message["state"] == "detect":
            await connection.answer(f"You said {message['text']}.", 4, stt=message["text"])
        elif message["type"] == "listen" and message["state"] == "stop":
            await connection.answer("I heard you.", 4, stt="spoken")


def test_json_is_one_object_with_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(echo, token="t").in_thread() as server:
        assert run(TalkOptions(ota=server.ota_url, text=("hello",), text_only=True, json=True)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = json.loads(out)
    assert report["ok"] is True
    assert (report["stt"], report["answer"], report["emotion"]) == ("hello", "You said hello.", "happy")
    assert report["audio_seconds"] == pytest.approx(0.24)
    assert report["first_audio_ms"] > 30  # what it is worth is measured elsewhere: machines are busy
    assert set(report["stages"]) == {
        "discover",
        "connect",
        "hello",
        "stt",
        "tts_start",
        "first_audio",
        "complete",
    }
    assert not any(report["counters"].values())
    assert len(report["turns"]) == 1
    assert report["turns"][0]["answer"] == "You said hello."
    detect = next(m for m in report["messages"] if m.get("state") == "detect")
    assert (detect["direction"], detect["type"], detect["text"]) == ("up", "listen", "hello")
    assert all(message["at_ms"] >= 0 for message in report["messages"])
    assert report["timeline"] == report["turns"][0]["timeline"]
    assert [span["name"] for span in report["timeline"]][:2] == ["stt", "tts_start"]
    spans = {span["name"]: (span["start_ms"], span["end_ms"]) for span in report["timeline"]}
    assert set(spans) == {"stt", "tts_start", "first_audio", "reply", "packets", "sentence 1"}
    assert spans["first_audio"][1] == report["first_audio_ms"]
    assert spans["sentence 1"][1] - spans["sentence 1"][0] >= 239  # rounded twice


def test_a_spoken_turn_is_shown_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question, reply = tmp_path / "question.wav", tmp_path / "reply.wav"
    write_wav(question, tone(0.3), 16000)
    with ScriptedServer(echo).in_thread() as server:
        options = TalkOptions(
            url=server.ws_url, wav=(question,), mode=ListenMode.MANUAL, save=reply, protocol=3
        )
        assert run(options) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for part in (
        "↑ listen start manual",
        "↑ audio: 9 × Opus, 0.54 s",
        "↓ stt",
        "spoken",
        "↓ tts sentence_start",
        "I heard you.",
        "↓ audio: 4 × Opus, 0.24 s",
        "end of speech → first audio",
        f"saved {reply}",
    ):
        assert part in out
    with wave.open(str(reply)) as wav:
        assert (wav.getframerate(), wav.getnchannels()) == (16000, 1)
        assert wav.getnframes() == 4 * 960


def test_several_turns(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(echo).in_thread() as server:
        options = TalkOptions(url=server.ws_url, text=("one", "[two]"), text_only=True, json=True)
        assert run(options) == 0
    report = json.loads(capsys.readouterr().out)
    assert [turn["answer"] for turn in report["turns"]] == ["You said one.", "You said [two]."]
    assert report["answer"] == "You said [two]."
    assert report["audio_seconds"] == pytest.approx(0.48)
    assert len(server.connections) == 1


def pull(**more: Any) -> TalkOptions:
    return TalkOptions(text=("x",), transport="pull4g", **more)


@pytest.mark.parametrize(
    ("codec", "framed", "form"),
    [
        (None, None, Form(Codec.OPUS, framed=True)),
        (None, False, Form(Codec.PCM, framed=False)),
        (None, True, Form(Codec.OPUS, framed=True)),
        (Codec.PCM, None, Form(Codec.PCM, framed=False)),
        (Codec.PCM, True, Form(Codec.PCM, framed=True)),
        (Codec.ADPCM, None, Form(Codec.ADPCM, framed=True)),
        (Codec.ADPCM, False, Form(Codec.ADPCM, framed=False)),
    ],
)
def test_what_is_not_said_of_a_form(codec: Codec | None, framed: bool | None, form: Form) -> None:
    assert form_of(codec, framed) == form


@pytest.mark.parametrize(("text", "language"), [("现在几点了", "zh-CN"), ("What time is it?", "en-US")])
def test_text_is_spoken_first(text: str, language: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(echo).in_thread() as server:
        options = TalkOptions(
            ota=server.ota_url, text=(text,), mode=ListenMode.MANUAL, json=True, device_id="02:00:00:00:00:AB"
        )
        assert run(options) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "I heard you."
    assert len(server.connections[0].audio) > 10
    headers, _ = server.ota_requests[0]
    assert headers["Accept-Language"] == language
    assert headers["Device-Id"] == "02:00:00:00:00:ab"


def test_faults_and_failures_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    async def rude(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen")
        await connection.socket.send_str("[junk]")
        await connection.drain()

    with ScriptedServer(rude).in_thread() as server:
        assert run(TalkOptions(url=server.ws_url, text=("x",), text_only=True, timeout=0.2)) == 1
    out, err = capsys.readouterr()
    assert "unreadable_messages" in out
    assert err == "no answer came within 0.2 s\n"


def shown(picture: Path) -> list[str]:
    return [element.text or "" for element in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("mode", "heading"),
    [(ListenMode.MANUAL, "button released → first audio: "), (ListenMode.AUTO, "text sent → first audio: ")],
)
def test_the_waterfall(
    mode: ListenMode, heading: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question, picture = tmp_path / "question.wav", tmp_path / "turn.SVG"
    write_wav(question, tone(0.3) + bytes(16000) + tone(0.3), 16000)
    spoken = mode is ListenMode.MANUAL
    said = {"wav": (question,)} if spoken else {"text": ("hello", "a < b"), "text_only": True}
    with ScriptedServer(echo).in_thread() as server:
        assert run(TalkOptions(url=server.ws_url, mode=mode, waterfall=picture, **said)) == 0  # type: ignore[arg-type]
    assert f"saved {picture}" in capsys.readouterr().out
    words = shown(picture)
    assert len([word for word in words if word.startswith(heading) and word.endswith(" ms")]) == 2 - spoken
    assert any(word.startswith("longest pause ") for word in words) is spoken
    assert ("user's speech" in words[:-10]) is spoken  # the last ten are the legend
    assert ("You said a < b." in words) is not spoken


def test_the_waterfall_of_a_turn_without_an_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "turn.svg"
    with ScriptedServer(silent).in_thread() as server:
        options = TalkOptions(url=server.ws_url, text=("x",), text_only=True, timeout=0.2, waterfall=picture)
        assert run(options) == 1
    assert capsys.readouterr().err == "no answer came within 0.2 s\n"
    assert "no answer came within 0.2 s" in shown(picture)


def test_ctrl_c_still_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A conversation with a real microphone ends in no other way."""
    talked = Conversation(timelines=[TurnTimeline(said="hello")])
    for name, problem in (("turn.svg", ""), (".", f"cannot write {tmp_path}: Is a directory\n")):
        options = TalkOptions(mic=True, waterfall=tmp_path / name)
        assert talk._interrupted(options, talked, Console(quiet=True)) == 130
        assert capsys.readouterr().err == problem
    assert "said: hello" in shown(tmp_path / "turn.svg")


def test_a_server_that_hangs_up_before_anything_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    async def hang_up(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start")

    with ScriptedServer(hang_up).in_thread() as server:
        assert run(TalkOptions(url=server.ws_url, text=("x",), timeout=1)) == 1
    assert capsys.readouterr().err == "the server closed the connection before its answer was complete\n"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def fails(options: TalkOptions, capsys: pytest.CaptureFixture[str], code: int = 1) -> str:
    assert run(options) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    for options in (
        TalkOptions(url=f"ws://{address}/", text=("x",), text_only=True),
        TalkOptions(ota=f"http://{address}/", text=("x",), text_only=True),
    ):
        err = fails(options, capsys)
        assert address in err
        assert "mynah serve" in err


def test_wake_word_first(capsys: pytest.CaptureFixture[str]) -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        assert (await connection.until("listen", state="detect"))["text"] == "hey mynah"
        early = len(connection.audio)
        await connection.until("listen", state="start", mode="auto")
        await connection.answer("Hello.", 2, stt="hey mynah")
        assert 5 < early <= 33
        await connection.until("listen", state="start", mode="auto")
        await connection.audio_frames(20)
        await connection.answer("Late.", 2, stt="what time is it")
        await connection.drain()

    with ScriptedServer(script).in_thread() as server:
        options = TalkOptions(url=server.ws_url, wake="hey mynah", text=("what time is it",), json=True)
        assert run(options) == 0
    report = json.loads(capsys.readouterr().out)
    assert [(turn["said"], turn["answer"]) for turn in report["turns"]] == [
        ("hey mynah", "Hello."),
        ("what time is it", "Late."),
    ]
    assert not any(report["counters"].values())


def test_the_json_dialect_with_pcm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(connection: Connection) -> None:
        await greet(connection)
        while not (await connection.until("audio"))["is_final"]:
            pass
        await json_answer(connection)
        await connection.drain()

    question = tmp_path / "question.wav"
    write_wav(question, tone(0.3), 16000)
    with ScriptedServer(script).in_thread() as server:
        options = TalkOptions(
            url=server.ws_url,
            wav=(question,),
            mode=ListenMode.MANUAL,
            dialect=Dialect.JSON,
            audio_format="pcm",
            save=tmp_path / "reply.wav",
        )
        assert run(options) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for part in (
        "↑ device_info",
        "↓ session_ready",
        "↑ audio: 9 × PCM, 0.54 s",
        "↓ audio: 3 × Opus",
        "Hello.",
    ):
        assert part in out
    with wave.open(str(tmp_path / "reply.wav")) as wav:
        assert wav.getnframes() == 3 * 960


def test_the_code_of_a_new_device_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    ota = {"activation": {"code": "123456", "message": "Enter it", "challenge": "c"}}
    with ScriptedServer(echo, ota=ota).in_thread() as server:
        options = TalkOptions(ota=server.ota_url, text=("x",), text_only=True, timeout=0.3)
        assert run(options) == 1
    out, err = capsys.readouterr()
    assert "Enter it" in out
    shown, reason = err.splitlines()
    assert shown == "this device has no owner yet: enter the code 123456"
    assert reason.endswith("nobody did within 0.3 s")


def test_a_token_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(echo, token="secret").in_thread() as server:
        err = fails(TalkOptions(url=server.ws_url, text=("x",), text_only=True), capsys)
        assert "wants a token (401) (presented no token): pass --token, or --ota" in err
        options = TalkOptions(ota=server.ota_url, token="wrong", text=("x",), text_only=True)
        err = fails(options, capsys)
        assert "does not accept this token (401) (presented no token): leave --token out" in err
        options = TalkOptions(url=server.ws_url, token="secret", text=("x",), text_only=True)
        assert run(options) == 0


def test_failures_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    options = TalkOptions(url=f"ws://127.0.0.1:{free_port()}/", text=("x",), text_only=True, json=True)
    assert run(options) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["ok"] is False
    assert report["error"] == err.strip()
    assert (report["answer"], report["first_audio_ms"], report["turns"]) == ("", None, [])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (TalkOptions(), "pass --text, --wav, --wake or --mic"),
        (TalkOptions(wake="hey", mode=ListenMode.MANUAL), "--wake needs --mode auto or realtime"),
        (TalkOptions(wake="hey", mic=True), "--wake needs --mode auto or realtime, and no --mic"),
        (TalkOptions(text=("x",), audio_format="pcm"), "--audio-format pcm needs --dialect json"),
        (TalkOptions(text=("x",), iot=True, photo=Path("x.jpg")), "--photo needs MCP"),
        (TalkOptions(text=("x",), dialect=Dialect.JSON, photo=Path("x.jpg")), "--photo needs MCP"),
        (TalkOptions(text=("x",), photo=Path("/no/such.jpg")), "cannot read /no/such.jpg: No such file"),
        (TalkOptions(text=("x",), photo=Path(__file__)), "test_talk.py is no JPEG file"),
        (TalkOptions(text=("x",), timeout=-3), "--timeout -3 makes no sense"),
        (TalkOptions(text=("x",), timeout=float("nan")), "--timeout nan makes no sense"),
        (TalkOptions(text=("x",), timeout=float("inf")), "--timeout inf makes no sense"),
        (TalkOptions(text=("x",), save=Path("/no/such/reply.wav")), "cannot write /no/such/reply.wav"),
        (TalkOptions(text=("x",), waterfall=Path("/no/such/turn.svg")), "cannot write /no/such/turn.svg"),
        (TalkOptions(text=("x",), waterfall=Path("turn.png")), "so the name ends in .svg"),
        (TalkOptions(wav=(Path(__file__),)), "as audio"),
        (TalkOptions(text=("x",), transport="mqtt"), "the transport mqtt is not available"),
        (TalkOptions(text=("x",), url="tcp://h:1"), "add --transport pull4g"),
        (TalkOptions(text=("x",), framed=False), "--codec, --framed and --plain need --transport pull4g"),
        (pull(text_only=True), "--text-only does not go with --transport pull4g"),
        (pull(mode=ListenMode.AUTO), "--mode auto: with --transport pull4g the button decides"),
        (pull(wake="hey"), "--wake does not go with"),
        (pull(mic=True), "--mic does not go with"),
        (pull(iot=True), "--iot does not go with"),
        (pull(dialect=Dialect.JSON), "--dialect json does not go with"),
        (pull(protocol=2), "--protocol does not go with"),
        (pull(codec=Codec.OPUS, framed=False), "Opus needs framed mode"),
        (TalkOptions(text=("x",), ota="http://x/", url="ws://x/"), "either --ota or --url"),
        (TalkOptions(text=(" ",)), "there is no text to speak"),
        (TalkOptions(wav=(Path("/no/such.wav"),)), "no such audio file: /no/such.wav"),
        (TalkOptions(mic=True, mode=ListenMode.MANUAL), "--mic needs --mode auto or realtime"),
    ],
)
def test_arguments_that_make_no_sense(
    options: TalkOptions, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reason in fails(options, capsys, 2)


def test_a_picture_that_no_device_can_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "large.jpg"
    photo.write_bytes(JPEG + bytes(MAX_PHOTO_BYTES))
    assert "no device can hold it" in fails(TalkOptions(text=("x",), photo=photo), capsys, 2)


def test_a_reply_that_cannot_be_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(echo).in_thread() as server:
        options = TalkOptions(url=server.ws_url, text=("x",), text_only=True, save=tmp_path)
        assert run(options) == 1
    assert f"cannot write {tmp_path}" in capsys.readouterr().err


def calling(name: str, arguments: dict[str, object], initialize: dict[str, object]) -> Script:
    """A server that calls a tool and answers with what it returned."""

    async def call(connection: Connection, number: int, method: str, params: dict[str, object]) -> object:
        payload = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        await connection.send("mcp", payload=payload)
        return (await connection.until("mcp"))["payload"]

    async def script(connection: Connection) -> None:
        await connection.hello()
        await call(connection, 1, "initialize", initialize)
        # What is typed may overtake the answer to our first call.
        if not any(message["type"] == "listen" for message in connection.received):
            await connection.until("listen", state="detect")
        returned = await call(connection, 2, "tools/call", {"name": name, "arguments": arguments})
        await connection.answer(json.dumps(returned), 2)
        await connection.drain()

    return script


def test_tools_are_shown_with_their_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    script = calling("self.audio_speaker.set_volume", {"volume": 30}, {})
    with ScriptedServer(script).in_thread() as server:
        assert run(TalkOptions(url=server.ws_url, text=("quieter",), text_only=True)) == 0
        assert '↓ mcp tools/call self.audio_speaker.set_volume {"volume":30}' in capsys.readouterr().out
        assert run(TalkOptions(url=server.ws_url, text=("quieter",), text_only=True, json=True)) == 0
    messages = json.loads(capsys.readouterr().out)["messages"]
    assert [m["calls"] for m in messages if "calls" in m] == [
        [{"name": "self.audio_speaker.set_volume", "arguments": {"volume": 30}}]
    ]


def test_the_camera_sees_the_photo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(JPEG + b"a cat")
    vision = Vision(body="A cat.")
    loop = asyncio.new_event_loop()
    running = vision.running()
    url = loop.run_until_complete(running.__aenter__())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    script = calling(
        "self.camera.take_photo", {"question": "What is it?"}, {"capabilities": {"vision": {"url": url}}}
    )
    try:
        with ScriptedServer(script).in_thread() as server:
            assert run(TalkOptions(url=server.ws_url, text=("look",), text_only=True, photo=photo)) == 0
            out = capsys.readouterr().out
            assert '↓ mcp tools/call self.camera.take_photo {"question":"What is it?"}' in out
            assert "A cat." in out
            assert run(TalkOptions(url=server.ws_url, text=("look",), text_only=True)) == 0
            assert "Unknown tool: self.camera.take_photo" in capsys.readouterr().out
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.run_until_complete(running.__aexit__(None, None, None))
        loop.close()
    assert [part[3] for part in vision.parts] == [b"What is it?", JPEG + b"a cat"]


def test_what_the_boot_suffered_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    ota = {"websocket": {"url": "ws://127.0.0.1:1/", "a_key_that_is_too_long": 1}}
    with ScriptedServer(echo, ota=ota).in_thread() as server:
        assert run(TalkOptions(ota=server.ota_url, text=("x",), text_only=True, json=True)) == 1
    report = json.loads(capsys.readouterr().out)
    assert {name: count for name, count in report["counters"].items() if count} == {"nvs_overflow": 1}


def test_microphone(sounddevice: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(connection: Connection) -> None:
        await connection.hello()
        await connection.until("listen", state="start", mode="realtime")
        await connection.audio_frames(3)
        await connection.answer("Heard.", 3, stt="live")
        await asyncio.sleep(0.1)

    def record() -> None:
        while "close" not in FakeStream.made[0].log if FakeStream.made else time.monotonic() < deadline:
            if FakeStream.made:
                FakeStream.made[0].record(tone(0.06))
            time.sleep(0.06)

    deadline = time.monotonic() + 10
    recorder = threading.Thread(target=record)
    recorder.start()
    with ScriptedServer(script).in_thread() as server:
        assert run(TalkOptions(url=server.ws_url, mic=True, mode=ListenMode.REALTIME)) == 0
    recorder.join(5)
    out, err = capsys.readouterr()
    assert err == ""
    assert "Heard." in out
    assert len(server.connections[0].audio) >= 3
    assert any(FakeStream.made[1].play(960 * 2))


def test_ctrl_c_ends_quietly() -> None:
    program = (
        # Whoever runs the tests in the background has them inherit an ignored SIGINT.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from mynah.sim.talk import TalkOptions, run;"
        "sys.exit(run(TalkOptions(url=sys.argv[1], text=('x',), text_only=True)))"
    )
    with ScriptedServer(silent).in_thread() as server:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", program, server.ws_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        for line in process.stdout:
            if "detect" in line:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert err == "interrupted\n"
