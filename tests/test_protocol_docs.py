"""docs/protocol.md and its Chinese twin say what the server does: their examples, numbers, pictures and promises."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args

import msgspec
import pytest

from mynah.audio import credit
from mynah.config import Settings
from mynah.config.server import Limits
from mynah.dialogue import listen, session, wake_audio
from mynah.engine import MAX_NO_VOICE_S
from mynah.net import devices, download_slots, firmware, vision, websocket
from mynah.providers.base import ChatMessage, LlmRequest, Role, TextDelta, ToolCall, ToolSpec
from mynah.providers.llm.builtin import BuiltinLlm, BuiltinLlmOptions
from mynah.providers.llm.builtin_switches import find_switches
from mynah.providers.llm.builtin_things import find_level_tool
from mynah.security import binding, tokens
from mynah.tools import device_mcp
from mynah.wire import frames, hello, iot, json_dialect, mcp, messages, ota

ROOT = Path(__file__).parent.parent
ENGLISH, CHINESE = ROOT / "docs" / "protocol.md", ROOT / "docs" / "zh" / "protocol.md"
PICTURES = ROOT / "docs" / "protocol"
BOTH = pytest.mark.parametrize("page", [ENGLISH, CHINESE], ids=["en", "zh"])

BLOCK = re.compile(r"(?:^<!-- ([^\n]+) -->\n\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) +(.+)$", re.MULTILINE)


class Block(NamedTuple):
    mark: str
    language: str
    text: str


def read(page: Path) -> str:
    return page.read_text("utf-8")


def blocks(page: Path, mark: str = "") -> list[Block]:
    found = [Block(*match) for match in BLOCK.findall(read(page))]
    return [block for block in found if block.mark.split(" ")[0] == mark] if mark else found


def section(page: Path, number: int) -> str:
    """Return one of the ``##`` sections; both pages have the same in the same order."""
    return re.split(r"^## +.+$", BLOCK.sub("", read(page)), flags=re.MULTILINE)[number]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows but the heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {lines[i - 1] for i, line in enumerate(lines) if set(line) <= set("|- ")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line not in heads and not set(line) <= set("|- ")
    ]


SECTIONS = [title for _, title in HEADING.findall(BLOCK.sub("", read(ENGLISH))) if _ == "##"]
LIMITS_SECTION = SECTIONS.index("Limits") + 1
ERRORS_SECTION = SECTIONS.index("Errors and close codes") + 1
CONNECTING_SECTION = SECTIONS.index("Connecting") + 1


# ---------------------------------------------------------------- the two pages


def test_both_pages_have_the_same_sections_blocks_and_pictures() -> None:
    shapes = [
        [marks for marks, _ in HEADING.findall(BLOCK.sub("", read(page)))] for page in (ENGLISH, CHINESE)
    ]
    assert shapes[0] == shapes[1]
    assert blocks(ENGLISH) == blocks(CHINESE)
    pictures = [re.findall(r"\((\S+\.svg)\)", read(page)) for page in (ENGLISH, CHINESE)]
    assert pictures[1] == [f"../{picture.replace('.svg', '.zh.svg')}" for picture in pictures[0]]


def test_both_pages_have_the_same_tables() -> None:
    def codes(page: Path) -> list[list[list[str]]]:
        """What stands in code style in each cell: names and numbers, the same in every language."""
        return [[sorted(re.findall(r"`([!-;=-~]+)`", cell)) for cell in row] for row in rows(read(page))]

    assert codes(ENGLISH) == codes(CHINESE)


def test_every_json_block_says_what_it_is() -> None:
    known = {"device", "server", "ota", "activation", "status"}
    for block in blocks(ENGLISH):
        if block.language == "json":
            assert block.mark.split(" ")[0] in known, block.text


# ---------------------------------------------------------------- examples


def device_structs() -> dict[str, type[msgspec.Struct]]:
    return {struct.__struct_config__.tag: struct for struct in get_args(messages.DeviceMessage)}


def server_structs() -> dict[tuple[str, str], type[msgspec.Struct]]:
    """By type and state: three structs share the type ``tts``, one of them has two states."""
    found: dict[tuple[str, str], type[msgspec.Struct]] = {}
    for struct in get_args(messages.ServerMessage):
        states = next((get_args(f.type) for f in msgspec.structs.fields(struct) if f.name == "state"), ("",))
        found |= {(struct.__struct_config__.tag, state): struct for state in states}
    return found


@pytest.mark.parametrize("block", blocks(ENGLISH, "device"), ids=lambda block: block.text.split("\n")[0][:50])
def test_messages_of_devices_are_understood(block: Block) -> None:
    told = json.loads(block.text)
    message = messages.decode(block.text)
    assert isinstance(message, device_structs()[told["type"]])
    assert set(told) - {"type"} <= set(message.__struct_fields__), "a field that the server does not read"
    for name in set(told) - {"type"}:
        assert msgspec.to_builtins(getattr(message, name)) == told[name]
    if isinstance(message, messages.AudioData):
        json_dialect.decode_data(message)


@pytest.mark.parametrize("block", blocks(ENGLISH, "server"), ids=lambda block: block.text.split("\n")[0][:50])
def test_messages_of_the_server_are_what_it_writes(block: Block) -> None:
    told = json.loads(block.text)
    struct = server_structs()[told["type"], told.get("state", "")]
    message = msgspec.convert({k: v for k, v in told.items() if k != "type"} | {"type": told["type"]}, struct)
    assert json.loads(messages.encode(message)) == told  # type: ignore[arg-type]
    messages.decode_server(block.text)


def test_every_message_has_an_example_and_a_row() -> None:
    shown = {json.loads(block.text)["type"] for block in blocks(ENGLISH, "device")}
    assert shown == set(device_structs())
    states = {
        (m["type"], m.get("state", "")) for m in map(json.loads, (b.text for b in blocks(ENGLISH, "server")))
    }
    assert states == set(server_structs())
    text = section(ENGLISH, SECTIONS.index("Messages") + 1)
    named = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(text))))
    assert set(device_structs()) | {kind for kind, _ in server_structs()} <= named
    assert {state for _, state in server_structs() if state} <= named


def test_mcp_examples_are_what_our_client_says_and_reads() -> None:
    requests, answers = [], []
    for block in blocks(ENGLISH):
        if '"mcp"' in block.text and block.mark in ("device", "server"):
            (requests if block.mark == "server" else answers).append(json.loads(block.text).get("payload"))
    requests = [request for request in requests if request]
    answers = [answer for answer in answers if answer]
    ours = mcp.McpSession()
    vision_access = requests[0]["params"]["capabilities"]["vision"]
    initialize = ours.initialize(vision_access["url"], vision_access["token"])
    initialize["params"]["clientInfo"]["version"] = requests[0]["params"]["clientInfo"]["version"]
    assert requests[0] == initialize
    assert requests[1] == ours.list_tools()
    later = mcp.McpSession(first_id=5)
    assert requests[2] == later.call("self.audio_speaker.set_volume", {"volume": 30})
    received = [ours.receive(answer) for answer in answers]
    assert [type(answer) for answer in received] == [mcp.McpResult] * 3 + [mcp.McpFailure]
    page = mcp.parse_tools(received[1].result)  # type: ignore[union-attr]
    assert [tool.name for tool in page.tools] == ["self.audio_speaker.set_volume"]
    assert page.next_cursor
    assert mcp.result_text(received[2].result) == "true"  # type: ignore[union-attr]


def test_iot_examples_are_understood() -> None:
    told = [json.loads(b.text) for b in blocks(ENGLISH, "device") if json.loads(b.text)["type"] == "iot"]
    (thing,) = iot.parse_descriptors(told[0]["descriptors"])
    assert (thing.name, thing.methods[0].name, thing.methods[0].parameters[0].name) == (
        "Speaker",
        "SetVolume",
        "volume",
    )
    assert iot.parse_states(told[1]["states"]) == {"Speaker": {"volume": 70}}
    (commands,) = [json.loads(b.text) for b in blocks(ENGLISH, "server") if '"iot"' in b.text]
    assert commands["commands"] == [iot.command("Speaker", "SetVolume", {"volume": 30})]


def test_the_ota_request_is_read() -> None:
    (body,) = [block.text for block in blocks(ENGLISH, "ota") if block.mark == "ota request"]
    request = ota.parse_request({}, body.encode())
    told = json.loads(body)
    assert request.device_id == told["mac_address"]
    assert request.client_id == told["uuid"]
    assert request.app_version == told["application"]["version"]
    assert request.board_type == told["board"]["type"]
    assert request.language == told["language"]


def test_ota_replies_are_what_the_server_writes() -> None:
    replies = [block.text for block in blocks(ENGLISH, "ota") if block.mark == "ota reply"]
    for text in replies:
        reply = ota.decode_reply(text.encode())
        # The server sends all keys of a part, so whatever it would leave out as a default is compared separately.
        written = json.loads(ota.encode_reply(reply, "1.4.0"))
        assert written == json.loads(text)
    activation = ota.decode_reply(replies[1].encode()).activation
    assert activation is not None
    assert len(activation.code) == binding.CODE_DIGITS
    for block in blocks(ENGLISH, "activation"):
        wrapped = json.dumps({"Payload": json.loads(block.text)})
        for body in (block.text, wrapped):
            assert ota.parse_activation(body.encode()).challenge == activation.challenge


@pytest.mark.parametrize("block", blocks(ENGLISH, "frame"), ids=lambda block: block.mark)
def test_frames_are_what_the_code_makes(block: Block) -> None:
    given = dict(part.split("=") for part in block.mark.split(" ")[1:])
    packet, stamp, version = bytes.fromhex(given["packet"]), int(given["timestamp"]), int(given["version"])
    frame = frames.encode_audio(version, packet, stamp)
    assert block.text.strip() == frame.hex(" ")
    assert frames.decode_audio(version, frame) == frames.AudioFrame(packet, stamp)


def test_every_framing_is_shown() -> None:
    shown = {int(re.findall(r"version=(\d)", block.mark)[0]) for block in blocks(ENGLISH, "frame")}
    assert shown == set(hello.VERSIONS)


def test_the_dialogue_in_json_is_well_formed() -> None:
    (block,) = blocks(ENGLISH, "dialogue")
    for line in block.text.strip().splitlines():
        arrow, _, text = line.partition(" ")
        if arrow == "→":
            messages.decode(text)
        else:
            messages.decode_server(text)


def test_the_program_shown_is_the_one_in_examples() -> None:
    (block,) = [block for block in blocks(ENGLISH) if block.language == "python"]
    assert block.text == read(ROOT / "examples" / "text_client.py")


async def builtin_answer(said: str, tool: str, content: str) -> str:
    """What the built-in responder says when ``tool`` has answered ``content``."""
    messages_so_far = (
        ChatMessage(Role.USER, said),
        ChatMessage(Role.ASSISTANT, "", (ToolCall("1", tool, "{}"),)),
        ChatMessage(Role.TOOL, content, tool_call_id="1", name=tool),
    )
    request = LlmRequest(messages_so_far, (ToolSpec(tool, "", {}),))
    llm = BuiltinLlm("builtin", BuiltinLlmOptions())
    return "".join([chunk.text async for chunk in llm.generate(request) if isinstance(chunk, TextDelta)])


async def test_the_status_shown_is_understood_without_a_model() -> None:
    (block,) = blocks(ENGLISH, "status")
    said = await builtin_answer("device status", "self_get_device_status", block.text)
    for told in ("70 percent", "75 percent", "80 percent", "home", "strong"):
        assert told in said
    told = '{"network": {"type": "cellular", "carrier": "Acme", "signal": "very weak"}}'
    assert "mobile network Acme" in await builtin_answer("network", "self_get_device_status", told)


@BOTH
def test_the_tools_named_are_those_known_without_a_model(page: Path) -> None:
    text = read(page)
    for name, argument in (
        ("self.audio_speaker.set_volume", "volume"),
        ("self.screen.set_brightness", "brightness"),
    ):
        assert f"`{name}`" in text
        schema = {"properties": {argument: {"type": "integer", "maximum": 100}}}
        assert find_level_tool({name.replace(".", "_"): schema}, argument) is not None
    (row,) = [row for row in rows(text) if "self.lamp.set_power" in row[1]]
    for argument in re.findall(r"`(\w+)`", row[2].rpartition(";")[0] or row[2].rpartition("；")[0]):
        schema = {"properties": {argument: {"type": "boolean"}}}
        assert find_switches({"self_lamp_set_power": schema}, {}, "lamp", on=True), argument
    for verb in re.findall(r"`(\w+)`", row[1]):
        schema = {"properties": {"on": {"type": "boolean"}}}
        assert find_switches({f"self_lamp_{verb}": schema}, {}, "lamp", on=True), verb
    (row,) = [row for row in rows(text) if "`self.lamp.turn_on`" in row[1]]
    for pair in [("turn_on", "turn_off"), *re.findall(r"`(\w+)`/`(\w+)`", row[1])]:
        for on, word in zip((True, False), pair, strict=True):
            assert find_switches({f"self_lamp_{word}": {}}, {}, "lamp", on=on), word


# ---------------------------------------------------------------- numbers

LIMITS = Limits()
EXPECTED_LIMITS = [
    LIMITS.max_message_bytes,
    websocket.MAX_FRAGMENTED_BYTES,
    websocket.FLOOD_UNITS,
    frames.MAX_PACKET_BYTES,
    json_dialect.MAX_PCM_BYTES,
    credit.BURST_S,
    listen.MAX_UTTERANCE_BYTES / listen.SAMPLE_BYTES_PER_MS / 1000,
    wake_audio.MAX_PACKETS,
    wake_audio.MAX_AGE_S,
    session.MAX_TYPED_CHARS,
    tokens.MAX_ID_CHARS,
    tokens.MAX_TOKEN_CHARS,
    websocket.HANDSHAKE_TIMEOUT_S,
    LIMITS.max_connections,
    websocket.MAX_QUEUED_BYTES,
    min(Settings().close_connection_no_voice_time, MAX_NO_VOICE_S),
    mcp.MAX_TOOLS,
    mcp.MAX_PAGES,
    mcp.MAX_NAME_CHARS,
    mcp.MAX_DESCRIPTION_CHARS,
    mcp.MAX_SCHEMA_BYTES,
    mcp.MAX_TEXT_CHARS,
    mcp.MAX_FAILURE_CHARS,
    device_mcp.CALL_TIMEOUT_S,
    device_mcp.DISCOVERY_TIMEOUT_S,
    device_mcp.MAX_PENDING,
    iot.MAX_THINGS,
    iot.MAX_MEMBERS,
    iot.MAX_NAME_CHARS,
    iot.MAX_DESCRIPTION_CHARS,
    iot.MAX_VALUE_BYTES,
    LIMITS.http_body_bytes,
    ota.MAX_FIELD_CHARS,
    LIMITS.http_timeout_s,
    LIMITS.http_connections,
    firmware.MAX_DOWNLOADS,
    firmware.DOWNLOAD_S,
    download_slots.MIN_BYTES_S,
    LIMITS.vision_bytes,
    vision.MAX_QUESTION_CHARS,
    vision.MAX_PICTURES,
    vision.MAX_UPLOADS,
    binding.MAX_PENDING_PER_SOURCE,
    binding.CODE_LIFETIME_S,
]


@BOTH
def test_limits_are_those_of_the_code(page: Path) -> None:
    told = [float(row[1].split(" ")[0]) for row in rows(section(page, LIMITS_SECTION))]
    assert told == EXPECTED_LIMITS


@BOTH
def test_other_numbers_are_those_of_the_code(page: Path) -> None:
    text = read(page)
    for name in messages.EMOTIONS:
        assert f"`{name}`" in text
    assert f"{len(messages.EMOTIONS)} " in text
    for rate in (*json_dialect.PCM_RATES, *hello.SAMPLE_RATES):
        assert str(rate) in text
    assert MAX_NO_VOICE_S + devices.SWEEP_S < 110
    assert "110 " in text
    assert mcp.MAX_ID == 2147483647
    assert str(mcp.MAX_ID) in text
    assert f"{ota.MAX_KEY_CHARS} " in text
    assert f"{ota.MAX_STRING_BYTES} " in text
    assert f"{vision.ANSWER_S:g} " in text
    assert f"{vision.UPLOAD_S:g} " in text
    assert f"{firmware.WAIT_S:g} " in text
    assert f"{download_slots.WINDOW_S:g} " in text
    assert f" {websocket.TURN_UNITS} " in text


def test_every_close_code_and_setting_named_exists() -> None:
    named = set(re.findall(r"`(server\.[\w.]+|\w+_words|exit_commands|close_\w+)`", read(ENGLISH)))
    for key in named:
        found: Any = Settings
        for part in key.split("."):
            assert part in found.model_fields, key
            found = found.model_fields[part].annotation


# ---------------------------------------------------------------- pictures


def drawing() -> ModuleType:
    path = ROOT / "scripts" / "draw_protocol.py"
    spec = importlib.util.spec_from_file_location("draw_protocol", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def test_pictures_are_what_the_script_draws() -> None:
    pictures = drawing().pictures()
    assert {path.name for path in PICTURES.iterdir()} == set(pictures)
    for name, svg in pictures.items():
        assert read(PICTURES / name) == svg, "run scripts/draw_protocol.py"
        assert name in read(CHINESE if ".zh." in name else ENGLISH)


@pytest.mark.parametrize("path", sorted(PICTURES.glob("*.svg")), ids=lambda path: path.name)
def test_pictures_are_self_contained_and_described(path: Path) -> None:
    tree = ET.parse(path)
    space = "{http://www.w3.org/2000/svg}"
    assert tree.getroot().tag == f"{space}svg"
    assert tree.findtext(f"{space}title")
    assert tree.findtext(f"{space}desc")
    text = read(path).replace("http://www.w3.org/2000/svg", "")
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"https?:|@import|<image|<script", text), "GitHub shows no outside parts"


def test_messages_in_pictures_exist() -> None:
    names = {kind for kind, _ in server_structs()} | set(device_structs())
    for diagram in drawing().DIAGRAMS:
        for step in diagram.steps:
            code = getattr(step, "code", "")
            for kind in re.findall(r'"type":"(\w+)"', code):
                assert kind in names
            if code and not code.startswith(("{", "GET", "POST", "1", "2", "Opus")):
                for part in code.split(" · "):
                    assert part == "…" or part.split(" ")[0] in names, code
