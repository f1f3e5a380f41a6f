"""Valid input of each kind, as devices, servers, proxies and language-model services send it."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache

from mynah.audio.opus import Application, OpusEncoder
from mynah.providers.commands import load_commands
from mynah.security.tokens import TokenIssuer
from mynah.security.vision_tokens import VisionTokens
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.mcp_server import DeviceMcpServer
from mynah.wire.frames import encode_audio
from tests.fuzz.mutations import Sample, json_sample

SECRET = b"the secret of the fuzzed issuer"
NOW = 1_800_000_000.0


def as_json(*values: object) -> tuple[Sample, ...]:
    return tuple(json_sample(json.dumps(value, ensure_ascii=False).encode()) for value in values)


def as_text(*values: str) -> tuple[Sample, ...]:
    return tuple(Sample(value.encode()) for value in values)


# ---------------------------------------------------------------- the wire

_TOOL = {
    "name": "self.audio_speaker.set_volume",
    "description": "Set the volume of the audio speaker.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "volume": {"type": "integer", "minimum": 0, "maximum": 100},
            "theme": {"type": ["string", "null"], "enum": ["light", "dark"]},
            "on": {"type": "boolean"},
            "points": {"type": "array", "items": {"type": "number"}},
            "more": {"type": "object"},
        },
        "required": ["volume"],
    },
    "annotations": {"audience": ["user"]},
}

MCP_PAYLOADS = as_json(
    {"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}}}},
    {
        "jsonrpc": "2.0",
        "id": 2,
        "result": {"tools": [_TOOL, {**_TOOL, "name": "x"}], "nextCursor": "self.reboot"},
    },
    {"jsonrpc": "2.0", "id": 3, "result": {"content": [{"type": "text", "text": "true"}], "isError": False}},
    {"jsonrpc": "2.0", "id": 4, "result": {"content": [{"type": "text", "text": '"{\\"volume\\": 7}"'}]}},
    {"jsonrpc": "2.0", "id": 5, "result": {"content": [{"type": "image", "image": '{"data": "aGk="}'}]}},
    {"jsonrpc": "2.0", "id": 6, "error": {"code": -32601, "message": "Method not implemented: x"}},
    {"jsonrpc": "2.0", "id": 7, "error": "spoilt"},
    {"jsonrpc": "2.0", "method": "notifications/state_changed", "params": {"newState": "idle"}},
    {"jsonrpc": "2.0", "id": 8, "result": "plain"},
)

MCP_REQUESTS = as_json(
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {"vision": {"url": "u"}}}},
    {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"cursor": "", "withUserTools": False}},
    *(
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
        for name, arguments in (
            ("self.get_device_status", {}),
            ("self.audio_speaker.set_volume", {"volume": 30}),
            ("self.screen.set_theme", {"theme": "dark"}),
        )
    ),
)  # fmt: skip

DEVICE_MESSAGES = (
    *as_json(
        {
            "type": "hello", "version": 3, "features": {"mcp": True, "glyph_push": True, "aec": True},
            "text_font": {"bundle": "x", "charset": "common", "size": 20, "bpp": 4}, "transport": "websocket",
            "audio_params": {"format": "opus", "sample_rate": 16000, "channels": 1, "frame_duration": 60},
        },
        {"session_id": "s", "type": "listen", "state": "start", "mode": "auto"},
        {"session_id": "s", "type": "listen", "state": "detect", "text": "你好小智"},
        {"session_id": "", "type": "listen", "state": "stop"},
        {"session_id": None, "type": "abort", "reason": "wake_word_detected"},
        {"type": "iot", "update": True, "states": [{"name": "Speaker", "state": {"volume": 50}}]},
        {
            "type": "iot", "update": True, "descriptors": [{
                "name": "Speaker", "description": "扬声器",
                "properties": {"volume": {"description": "当前音量值", "type": "number"}},
                "methods": {"SetVolume": {"description": "设置音量", "parameters": {
                    "volume": {"description": "0到100之间的整数", "type": "number"}}}},
            }],
        },
        {"type": "goodbye", "session_id": "s"},
        {"type": "ping"},
        {"type": "device_info", "device_id": "02:00:00:00:00:01", "client_id": "c", "version": "1.0"},
        {"type": "heartbeat", "timestamp": 1790000000000},
        {"type": "audio", "data": "+P/+", "format": "opus", "sample_rate": 16000, "is_final": False},
        {"type": "audio", "data": "AAABAA==", "format": "pcm", "sample_rate": 16000, "is_final": True},
        *({"session_id": "s", "type": "mcp", "payload": json.loads(sample.data)} for sample in MCP_PAYLOADS),
    ),
    Sample(b'{"session_id":"s","type":"mcp","payload":{"jsonrpc":"2.0","id":5,"error":{"message":"no "x" here"}}}'),
    Sample(b'{"session_id":"","type":"listen","state":"detect","text":"say "hi" now"}'),
)  # fmt: skip

SERVER_MESSAGES = as_json(
    {
        "type": "hello", "transport": "websocket", "session_id": "s", "version": 1,
        "audio_params": {"format": "opus", "sample_rate": 24000, "channels": 1, "frame_duration": 60},
    },
    {"type": "stt", "text": "你好", "session_id": "s"},
    {"type": "llm", "emotion": "happy", "text": "🙂", "session_id": "s"},
    {"type": "tts", "state": "start", "session_id": "s"},
    {"type": "tts", "state": "sentence_start", "text": "Hello.", "session_id": "s"},
    {"type": "tts", "state": "stop", "session_id": "s"},
    {"type": "iot", "commands": [{"name": "Lamp", "method": "TurnOn", "parameters": {}}], "session_id": "s"},
    {"type": "system", "command": "reboot", "session_id": "s"},
    {"type": "alert", "status": "Warning", "message": "Battery low", "emotion": "sad", "session_id": "s"},
    {"type": "pong", "session_id": "s"},
    {"type": "goodbye", "session_id": "s"},
    *({"type": "mcp", "payload": json.loads(sample.data)} for sample in MCP_REQUESTS),
)  # fmt: skip


@cache
def opus_packets() -> tuple[bytes, ...]:
    """Packets of all frame lengths and modes, and the short ones that DTX makes."""
    packets: list[bytes] = [b"\x58", b"\x58\x00", b"\xf8\xff\xfe", b"\xfb\x41\x02\xff\xfe\x00\x00"]
    for rate in (8000, 16000, 48000):
        for frame_ms in (5, 20, 60, 120):
            for mode in (Application.VOIP, Application.AUDIO, Application.LOW_DELAY):
                encoder = OpusEncoder(rate, frame_ms, bitrate=16000, application=mode)
                wave = (bytes([i * 37 % 251, i * 11 % 120]) for i in range(encoder.frame_samples))
                packets.append(encoder.encode(b"".join(wave)))
    return tuple(packets)


@cache
def opus_samples() -> tuple[Sample, ...]:
    return tuple(Sample(packet) for packet in opus_packets())


@cache
def audio_messages() -> tuple[Sample, ...]:
    """Messages of the JSON dialect that carry audio."""
    said = [(packet, "opus") for packet in opus_packets()[:12]] + [
        (bytes(rate // 25), "pcm") for rate in (640, 16000)
    ]
    return as_json(
        *(
            {
                "type": "audio",
                "data": b64encode(data).decode(),
                "format": kind,
                "sample_rate": 16000,
                "is_final": False,
            }
            for data, kind in said
        )
    )


@cache
def frame_samples(version: int) -> tuple[Sample, ...]:
    return tuple(Sample(encode_audio(version, packet, 77)) for packet in opus_packets())


_THING = {
    "name": "Speaker",
    "description": "扬声器",
    "properties": {"volume": {"description": "当前音量值", "type": "number"}, "muted": {"type": "boolean"}},
    "methods": {
        "SetVolume": {
            "description": "设置音量",
            "parameters": {"volume": {"description": "0到100之间的整数", "type": "number", "required": True}},
        },
        "Mute": {"description": "", "parameters": {}},
    },
}
THINGS = as_json(
    [_THING, {**_THING, "name": "Lamp"}],
    [
        {"name": "Speaker", "state": {"volume": 50, "muted": False}},
        {"name": "Lamp", "state": {"power": "on"}},
    ],
    [
        {
            **_THING,
            "properties": [{"name": "volume", "type": "number"}],
            "methods": [{"name": "On", "parameters": []}],
        }
    ],
)


# ---------------------------------------------------------------- HTTP

_IDENTITY = DeviceIdentity()


def _request(headers: dict[str, str], body: bytes = b"") -> Sample:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return Sample(lines.encode() + b"\r\n" + body)


OTA_REQUESTS = (
    _request(_IDENTITY.ota_headers(), _IDENTITY.ota_body()),
    _request({"device-id": "AA-BB-CC-DD-EE-FF", "user-agent": "bread-compact-wifi/py-xiaozhi-2.1.1"},
             b'{"application":{"version":"2.1.1","elf_sha256":"PRIVATE"},"board":{"type":"bread","mac":"aa:bb"}}'),
    _request({}, b'{"mac_address":"aa:bb:cc:dd:ee:ff","uuid":"u","board":{"type":"x","ssid":"my "home" net"}}'),
    _request({"Device-Id": "x"}),
)  # fmt: skip

SAY_REQUESTS = as_json(
    {"device_id": "02:00:00:00:00:01", "text": "The washing is done.", "wait_s": 60},
    {"device_id": "02-00-00-00-00-01", "text": "饭好了\n快来"},
    {"device_id": "x" * 80, "text": " ", "wait_s": -1, "more": [None]},
)
OTA_REPLIES = as_json(
    {
        "server_time": {"timestamp": 1790000000000, "timezone_offset": 480},
        "firmware": {"version": "1.2.3", "url": "http://h/f.bin"},
        "websocket": {"url": "ws://h:8000/xiaozhi/v1/", "token": "t", "version": 3},
        "mqtt": {
            "endpoint": "h:8883", "client_id": "c", "username": "u", "password": "p", "publish_topic": "t",
            "subscribe_topic": "null", "keepalive": 240,
        },
        "activation": {"code": "123456", "message": "m\n123456", "challenge": "c", "timeout_ms": 30000},
    },
    {"websocket": {"url": "ws://h/", "token": ""}, "firmware": {"version": "0.0.0", "url": ""}},
    {},
)  # fmt: skip

HANDSHAKES = (
    _request({"": "/xiaozhi/v1/", **_IDENTITY.websocket_headers("tok.d.sig", 3), "Host": "mynah"}),
    _request({"": "/xiaozhi/v1/?device-id=AA-BB-CC-DD-EE-FF&client-id=c&authorization=Bearer%20x", "Host": "h:8000",
              "Origin": "http://localhost:8002"}),
    _request({"": "/xiaozhi/v1/?token=x", "Host": "[::1]:8000", "Origin": "https://[fd00::1]", "X-Real-Ip": "1.2.3.4"}),
)  # fmt: skip

FORWARDED = (
    _request({"host": "mynah.local:8003"}),
    _request({"host": "inner", "x-forwarded-proto": "https", "x-forwarded-host": "v.org, b", "x-forwarded-port": "8443",
              "x-forwarded-prefix": "/voice/"}),
    _request({"host": "inner", "forwarded": 'for=1.2.3.4;proto=https;host="v.org:443", for=5.6.7.8'}),
    _request({"host": "[fd00::9]:8003", "x-forwarded-for": "1.2.3.4", "x-forwarded-host": "[fd00::9]:444"}),
)  # fmt: skip


def websocket_frame(kind: int, payload: bytes) -> bytes:
    """Return one masked frame; ``kind`` is the whole first byte."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    else:
        length = b"\xfe" + size.to_bytes(2, "big") if size < 65_536 else b"\xff" + size.to_bytes(8, "big")
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[place & 3] for place, byte in enumerate(payload))
    return bytes((kind,)) + length + mask + masked


def handshake(path: str = "/xiaozhi/v1/", more: str = "") -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: mynah\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    ).encode()


TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x81, 0x82, 0x80, 0x88, 0x89, 0x8A


@cache
def connections() -> tuple[Sample, ...]:
    """What a device sends from the first byte to the last."""
    texts = [websocket_frame(TEXT, sample.data) for sample in DEVICE_MESSAGES[:6]]
    audio = [websocket_frame(BINARY, packet) for packet in opus_packets()[:6]]
    pieces = [
        websocket_frame(kind, b'{"type":"ping"}'[at : at + 5]) for kind, at in ((1, 0), (0, 5), (0x80, 10))
    ]
    end = websocket_frame(CLOSE, (1000).to_bytes(2, "big") + b"bye")
    return (
        Sample(
            handshake(more="Device-Id: 02:00:00:00:00:01\r\nProtocol-Version: 1\r\n")
            + b"".join(texts + audio)
            + end
        ),
        Sample(
            handshake("/xiaozhi/v1/?device-id=x") + b"".join(pieces) + websocket_frame(PING, b"hi") + texts[0]
        ),
        Sample(
            handshake()
            + websocket_frame(BINARY, bytes(300))
            + websocket_frame(TEXT, bytes(70_000))
            + texts[1]
        ),
        Sample(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    )


_ISSUED = TokenIssuer(SECRET).issue("aa:bb:cc:dd:ee:ff", "client", NOW)
CREDENTIALS = as_text(
    f"Bearer {_ISSUED}\naa:bb:cc:dd:ee:ff\nclient\n127.0.0.1",
    f"{_ISSUED}\nAA-BB-CC-DD-EE-FF\nclient\n10.0.0.1%eth0",
    f"{TokenIssuer(SECRET).issue('', '', NOW)}\n\n\n::ffff:127.0.0.1",
    "Bearer named-token\n02:00:00:00:00:01\n\nfd00::1",
)

VISION_TOKENS = as_text(
    VisionTokens(SECRET).issue("02:00:00:00:00:01", "client", NOW),
    VisionTokens(SECRET).issue("", "", NOW),
    VisionTokens(SECRET).issue("02:00:00:00:00:01", "client", NOW - 90_000),
    "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJ4IiwiY2xpZW50X2lkIjoiIiwiYXVkIjoidmlzaW9uIiwiaWF0IjoxLCJleHAiOjJ9.",
)

_BOUNDARY = "----ESP32_CAMERA_BOUNDARY"
_FORM = (
    f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="question"\r\n\r\nwhat is this?\r\n--{_BOUNDARY}\r\n'
    'Content-Disposition: form-data; name="file"; filename="camera.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
).encode()
PICTURES = tuple(
    Sample(
        f"multipart/form-data; boundary={name}".encode()
        + b"\r\n\r\n"
        + _FORM
        + picture
        + f"\r\n--{_BOUNDARY}--\r\n".encode()
    )
    for name, picture in (
        (_BOUNDARY, b"\xff\xd8\xff\xe0" + bytes(range(256))),
        (f'"{_BOUNDARY}"', b"\r\n--\r\n----ESP32"),
    )
)

# ---------------------------------------------------------------- language models and people

TOOL_CALLS = as_json(
    *(
        [arguments, _TOOL["inputSchema"]]
        for arguments in (
            '{"volume": 30}', '{"volume": "30", "theme": "Dark", "on": "yes"}', '"{\\"volume\\": 30.0}"', "", "null",
            '{"Volume": 1e3, "points": "[1, 2]", "more": "{}", "theme": null}', '{"points": 7, "volume": -1}',
        )
    ),
    ['{"a": 1}', {"type": "object", "properties": {"a": {}, "b": {"type": "string"}}, "required": ["b"]}],
)  # fmt: skip

PROSE = as_text(
    'Hi there! It is 3:05 p.m., Mr. Smith said: "Of course." Then he left... at 1,000 m.',
    "你好！今天天气很好，最高气温25.5度。“真的吗？”他问：好的…",
    "# Title\n- **one**\n- [docs](http://x.y/z_1) `code` https://www.f.com/a?b=c 😊 snake_case 2*3\n1. a\n2) ~~x~~",
    "word " * 90,
    "E.g. the U.S. and etc. In Jan. 5 we met Dr. No; fine!? Yes: no. A. B. C.",
)

QUESTIONS = as_text(
    "What time is it?", "set a timer for two hours and thirty five minutes called tea", "turn the volume up to 50%",
    "remind me in a quarter of an hour to feed the cat", "how much is fifteen percent of 80", "现在几点了",
    "三分钟后提醒我关火", "把音量调到百分之五十", "十二乘以三加四等于多少", "5公里是多少英里",
    "convert 5 feet 3 inches to metres",
)  # fmt: skip


@cache
def command_samples() -> tuple[Sample, ...]:
    """Questions, and every word that the commands know: nonsense made of right words digs deepest."""
    words = " ".join(sorted(load_commands("en").vocabulary()))
    chinese = "把音量调到设置打开关闭明天上午下午三点半一二两十百千万分钟小时秒之后提醒我叫加减乘除以等于多少现在几点"
    return (*QUESTIONS, *as_text(words[:600], words[-600:], chinese))


SUMS = as_text(
    "12 * (3 + 4)", "2 ^ 10", "10 % 3", "sqrt(2)", "15% of 80", "100 + 10 %", "-5.25 / .5", "1,000,000 × 3²",
    "two plus two", "8 除以 2 的平方", "9 ^ 0.5 ^ 2", "((((1))))", "根号 16", "5 mod 3", "1/3 + 1/7",
)  # fmt: skip

UNITS = as_text("km", "miles per hour", "°C", "平方米", "fl oz", "GiB", "square feet", "磅")

STREAMS = as_text(
    ': keep-alive\n\ndata: {"choices":[{"index":0,"delta":{"role":"assistant","content":"<think>hm</think>Hi"}}]}\n\n'
    'data: {"choices":[{"delta":{"content":" there"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,'
    '"completion_tokens":2}}\n\ndata: [DONE]\n\n',
    'data: {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f",'
    '"arguments":"{\\"a\\":"}}]}}]}\r\n\r\ndata: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":'
    '{"arguments":"1}"}}]},"finish_reason":"tool_calls"}]}\r\n\r\n',
    'data: {"error":{"message":"slow down","code":"rate_limit_exceeded","type":"x"}}\n\n',
    'data: {"choices":[{"message":{"content":[{"type":"text","text":"all"}]},"finish_reason":"stop"}]}\rdata: [DONE]\r',
)

EVENTS = as_json(
    {"choices": [{"index": 0, "delta": {"content": "Hi<think>", "tool_calls": None}, "finish_reason": None}]},
    {
        "choices": [
            {"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}}
        ]
    },
    {"choices": [{"delta": {"tool_calls": [{"function": {"name": "g", "arguments": {"a": [1, 2]}}}]}}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
    {"error": {"message": "no", "code": 429, "type": "server_error"}},
)

REFUSALS = (
    *as_json(
        {"error": {"message": "bad key", "code": "invalid_api_key"}},
        [{"error": {"message": "quota", "code": 429, "status": "RESOURCE_EXHAUSTED"}}],
        {"detail": "x"},
    ),
    *as_text(
        "30", "0.5", "Wed, 21 Oct 2026 07:28:00 GMT", "Fri, 01 Jan 2027 00:00:00 -0000", "<html>502</html>"
    ),
)

LOG_LINES = as_text(
    "INFO 10:00:00 ota: 02:00:00:00:00:01 (board 1.0) asked at boot, sent to ws://h:8000/xiaozhi/v1/?token=named-token",
    'headers {"Authorization": "Bearer abc.def", "api_key": "sk-0123456789abcdef"} elf_sha256: deadbeef, hmac=1',
)


@cache
def device_replies() -> tuple[Sample, ...]:
    """What our own simulated device answers to every request it knows."""
    server = DeviceMcpServer()
    replies = [server.handle(json.loads(sample.data)) for sample in MCP_REQUESTS]
    return (*MCP_PAYLOADS, *as_json(*(reply for reply in replies if reply is not None)))
