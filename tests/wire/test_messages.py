import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.errors import WireError
from mynah.wire import messages as m

FIRMWARE_HELLO = b"""{"type":"hello","version":3,"features":{"mcp":true,"glyph_push":true},
"text_font":{"bundle":"x","charset":"common","size":20,"bpp":4},"transport":"websocket",
"audio_params":{"format":"opus","sample_rate":16000,"channels":1,"frame_duration":60}}"""


def test_hello_of_current_firmware() -> None:
    hello = m.decode(FIRMWARE_HELLO)
    assert isinstance(hello, m.Hello)
    assert hello.version == 3
    assert hello.features == {"mcp": True, "glyph_push": True}
    assert hello.audio_params == m.AudioParams("opus", 16000, 1, 60)


def test_hello_of_old_firmware_gets_defaults() -> None:
    hello = m.decode(b'{"type":"hello"}')
    assert hello == m.Hello(version=1, transport="websocket", features={}, audio_params=m.AudioParams())


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            '{"session_id":"s","type":"listen","state":"start","mode":"auto"}',
            m.Listen("start", m.ListenMode.AUTO, "", "s"),
        ),
        ('{"type":"listen","state":"stop"}', m.Listen("stop")),
        (
            '{"session_id":"","type":"listen","state":"detect","text":"你好"}',
            m.Listen("detect", None, "你好"),
        ),
        ('{"type":"listen","state":"stop","session_id":null}', m.Listen("stop", session_id=None)),
        ('{"type":"abort"}', m.Abort()),
        ('{"type":"abort","reason":"wake_word_detected"}', m.Abort("wake_word_detected")),
        ('{"type":"abort","reason":null}', m.Abort(None)),
        ('{"type":"mcp","payload":{"id":1,"result":{}}}', m.Mcp({"id": 1, "result": {}})),
        ('{"type":"iot","update":true,"states":[{"name":"Lamp"}]}', m.Iot(states=[{"name": "Lamp"}])),
        ('{"type":"goodbye","session_id":"s"}', m.Goodbye("s")),
        ('{"type":"ping"}', m.Ping()),
    ],
)
def test_device_messages(frame: str, expected: m.DeviceMessage) -> None:
    assert m.decode(frame) == expected
    assert m.decode(frame.encode()) == expected


SERVER_MESSAGES: list[tuple[m.ServerMessage, dict[str, object]]] = [
    (m.Stt("hi", "s"), {"type": "stt", "text": "hi", "session_id": "s"}),
    (
        m.Llm("happy", "🙂", "s"),
        {"type": "llm", "emotion": "happy", "text": "🙂", "session_id": "s"},
    ),
    (m.TtsStart("s"), {"type": "tts", "state": "start", "session_id": "s"}),
    (m.TtsStop("s"), {"type": "tts", "state": "stop", "session_id": "s"}),
    (
        m.TtsSentence("Hello.", "s"),
        {"type": "tts", "state": "sentence_start", "text": "Hello.", "session_id": "s"},
    ),
    (m.Pong("s"), {"type": "pong", "session_id": "s"}),
    (m.System("reboot", "s"), {"type": "system", "command": "reboot", "session_id": "s"}),
    (
        m.Alert("Warning", "Low battery", "sad", "s"),
        {"type": "alert", "status": "Warning", "message": "Low battery", "emotion": "sad", "session_id": "s"},
    ),
    (m.IotCommands([{"name": "x"}], "s"), {"type": "iot", "commands": [{"name": "x"}], "session_id": "s"}),
    (
        m.ServerHello("s", m.AudioParams(sample_rate=24000)),
        {
            "type": "hello",
            "session_id": "s",
            "transport": "websocket",
            "version": 1,
            "audio_params": {"format": "opus", "sample_rate": 24000, "channels": 1, "frame_duration": 60},
        },
    ),
]


@pytest.mark.parametrize(("message", "expected"), SERVER_MESSAGES)
def test_server_messages_as_json(message: m.ServerMessage, expected: dict[str, object]) -> None:
    assert json.loads(m.encode(message)) == expected


@pytest.mark.parametrize(("message", "expected"), SERVER_MESSAGES)
def test_a_device_reads_what_a_server_writes(message: m.ServerMessage, expected: dict[str, object]) -> None:
    read = m.decode_server(m.encode(message))
    assert msgspec.to_builtins(read).items() >= {k: v for k, v in expected.items() if k != "type"}.items()


@pytest.mark.parametrize(
    "message",
    [
        m.Hello(version=2),
        m.Listen("start", m.ListenMode.REALTIME, "", "s"),
        m.Abort("x", "s"),
        m.Mcp({"a": 1}),
        m.Goodbye("s"),
    ],
)
def test_a_server_reads_what_a_device_writes(message: m.DeviceMessage) -> None:
    assert m.decode(m.encode_device(message)) == message


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "hello",
        "[]",
        "{}",
        '{"type":"SECRET"}',
        '{"type":7}',
        '{"type":"listen"}',
        '{"type":"listen","state":"SECRET"}',
        '{"type":"listen","state":"detect","text":"a SECRET "word""}',
        '{"type":"mcp","payload":"SECRET"}',
        b'{"type":"abort","reason":"\xff SECRET"}',
        '{"type":"abort","reason":"\ud800 SECRET"}',
        '{"type":"mcp","payload":' + '{"a":' * 100_000 + "1" + "}" * 100_001,
        '{"type":"mcp","payload":{"SECRET":1e999}}',
    ],
)
@pytest.mark.parametrize("reader", [m.decode, m.decode_server])
def test_bad_frames_are_wire_errors_without_content(frame: bytes | str, reader) -> None:
    with pytest.raises(WireError) as caught:
        reader(frame)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_reason_names_the_field() -> None:
    with pytest.raises(WireError, match="missing required field `payload`"):
        m.decode('{"type":"mcp"}')


@given(st.binary() | st.text())
def test_any_frame_is_a_message_or_a_wire_error(frame: bytes | str) -> None:
    for reader in (m.decode, m.decode_server):
        try:
            reader(frame)
        except WireError:
            pass


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    kind=st.sampled_from(["hello", "listen", "abort", "mcp", "iot", "goodbye", "tts", "stt", "llm", "alert"]),
    rest=st.dictionaries(
        st.sampled_from(["state", "mode", "text", "payload", "session_id", "audio_params", "version"]),
        json_values,
    ),
)
def test_any_object_is_a_message_or_a_wire_error(kind: str, rest: dict[str, object]) -> None:
    frame = json.dumps({"type": kind, **rest})
    for reader in (m.decode, m.decode_server):
        try:
            reader(frame)
        except WireError as error:
            assert str(error).startswith("not a message: ")


def test_emotions_are_the_21_shared_names() -> None:
    assert len(set(m.EMOTIONS)) == 21


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ('{"type":"hello","features":null,"version":"1","audio_params":null}', m.Hello()),
        ('{"type":"hello","features":[],"version":3.5,"transport":null}', m.Hello()),
        ('{"type":"hello","features":{"mcp":true},"audio_params":{"sample_rate":1.5}}',
         m.Hello(features={"mcp": True})),
        ('{"type":"listen","state":"start","mode":"push"}', m.Listen("start")),
        ('{"type":"listen","state":"detect","text":null}', m.Listen("detect")),
        ('{"type":"abort","reason":7}', m.Abort()),
    ],
)  # fmt: skip
def test_odd_types_count_as_left_out_where_silence_would_be_worse(frame: str, message: object) -> None:
    assert m.decode(frame) == message


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["hello", "listen", "abort"])},
        optional={
            name: st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
            | st.dictionaries(st.text(max_size=3), st.none(), max_size=2)
            for name in ("version", "transport", "features", "audio_params", "state", "mode", "text", "reason")
        },
    )
)  # fmt: skip
def test_a_hello_and_an_abort_are_always_understood(told: dict[str, object]) -> None:
    frame = msgspec.json.encode(told)
    if told["type"] == "listen" and told.get("state") not in ("start", "stop", "detect"):
        with pytest.raises(WireError):
            m.decode(frame)
    else:
        assert type(m.decode(frame)).__name__.lower() == told["type"]
