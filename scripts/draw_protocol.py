"""Draw the sequence diagrams of docs/protocol.md and its Chinese twin as SVG files.

    python3 scripts/draw_protocol.py [folder]

Writes docs/protocol/*.svg (English) and *.zh.svg, or into another folder. Needs nothing but Python; the pictures follow
the reader's light or dark theme. What a diagram says stands in `DIAGRAMS`, how it looks in `draw`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "protocol"
LANGUAGES = ("en", "zh")

WIDTH = 780
LANES = {2: (130, 650), 3: (120, 450, 680)}
TOP = 92
ARROW_HEIGHT = 44
NOTE_LINE = 18
NOTE_WIDTH = 214

Text = tuple[str, str]
"""The same words in English and in Chinese."""


@dataclass(frozen=True)
class Arrow:
    """A message. ``code`` is what goes over the wire, ``remark`` says more; ``audio`` draws it as a stream."""

    source: int
    target: int
    code: str
    remark: Text = ("", "")
    audio: bool = False


@dataclass(frozen=True)
class Note:
    """Something that happens at one side. Lines are separated by newlines."""

    lane: int
    text: Text


@dataclass(frozen=True)
class Section:
    """A line across the picture: what follows happens in another situation."""

    text: Text


Step = Arrow | Note | Section


@dataclass(frozen=True)
class Diagram:
    """One picture. ``about`` is read out to people who do not see it."""

    name: str
    title: Text
    about: Text
    lanes: tuple[Text, ...]
    steps: tuple[Step, ...]


DEVICE: Text = ("Device", "设备")
SERVER: Text = ("Server", "服务器")
PACED: Text = ("paced: never more than 8 packets ahead", "按播放速度发送：最多领先 8 个包")
EVERY_60_MS: Text = ("one Opus packet every 60 ms", "每 60 毫秒一个 Opus 包")

BOOT = Diagram(
    "boot",
    ("From power-on to the first conversation", "从开机到第一次对话"),
    (
        "The device posts to the OTA address, is activated if the server asks for that, stores what it was told, and "
        "opens a WebSocket when it is woken.",
        "设备向 OTA 地址发 POST，服务器要求时先激活，然后保存得到的信息，被唤醒时打开 WebSocket。",
    ),
    (DEVICE, ("HTTP, port 8003", "HTTP，端口 8003"), ("WebSocket, port 8000", "WebSocket，端口 8000")),
    (
        Arrow(
            0,
            1,
            "POST /xiaozhi/ota/",
            ("Device-Id, Client-Id, description", "Device-Id、Client-Id、设备描述"),
        ),
        Section(
            ("only with server.binding: code, and only once", "仅当 server.binding: code 时，且只需一次")
        ),
        Arrow(1, 0, "200 {activation: {code, challenge, …}}"),
        Note(0, ("show and speak the code;\nthe owner types it in", "显示并念出验证码；\n主人在服务器输入")),
        Arrow(
            0,
            1,
            "POST /xiaozhi/ota/activate",
            ("every 3 s: 202 not yet, 200 bound", "每 3 秒一次：202 未绑定，200 已绑定"),
        ),
        Arrow(0, 1, "POST /xiaozhi/ota/"),
        Section(("always", "总是")),
        Arrow(1, 0, "200 {server_time, firmware, websocket}"),
        Note(
            0,
            (
                "store url, token, version;\nset the clock; then sleep",
                "保存 url、token、version，\n设置时钟，然后待机",
            ),
        ),
        Section(("the user wakes the device", "用户唤醒设备")),
        Arrow(
            0, 2, "GET /xiaozhi/v1/  Upgrade: websocket", ("Authorization, Device-Id, Protocol-Version",) * 2
        ),
        Arrow(2, 0, "101 Switching Protocols"),
        Arrow(0, 2, '{"type":"hello",…}', ("at once", "立即发送")),
        Arrow(2, 0, '{"type":"hello","session_id":…,"audio_params":…}'),
        Arrow(
            2,
            0,
            '{"type":"mcp","payload":{"method":"initialize",…}}',
            ("if features.mcp is true", "当 features.mcp 为 true"),
        ),
    ),
)

AUTO = Diagram(
    "auto",
    ("Auto mode: wake word, greeting, one question", "自动模式：唤醒词、问候、一次提问"),
    (
        "After the wake word the device sends what it recorded, the word and listen start; the server greets, hears "
        "the end of the question by itself, answers, and the device listens again.",
        "唤醒后设备先补发录音、唤醒词和 listen start；服务器问候，自己判断说话结束并回答，之后设备再次聆听。",
    ),
    (DEVICE, SERVER),
    (
        Note(0, ("wake word heard", "听到唤醒词")),
        Arrow(
            0,
            1,
            "Opus × up to 33",
            ("what was recorded before, in a burst (optional)", "唤醒前的录音，一次补发（可选）"),
            audio=True,
        ),
        Arrow(0, 1, "listen detect", ("text: the wake word", "text：唤醒词")),
        Arrow(0, 1, "listen start  mode auto"),
        Arrow(1, 0, "stt · tts start · llm · tts sentence_start", ("the greeting", "问候语")),
        Arrow(1, 0, "Opus", PACED, audio=True),
        Arrow(1, 0, "tts sentence_end · tts stop"),
        Note(0, ("play what is buffered,\nthen open the microphone", "播完缓冲的声音，\n再打开麦克风")),
        Arrow(0, 1, "listen start  mode auto"),
        Arrow(0, 1, "Opus", EVERY_60_MS, audio=True),
        Note(1, ("voice, then silence:\nthe utterance is over", "有声音，然后安静：\n这句话说完了")),
        Arrow(1, 0, "stt", ("what was understood; go on sending", "识别结果；继续发送音频")),
        Note(1, ("the answer is prepared;\nthe user may still go on", "准备回答；\n用户仍可接着说")),
        Arrow(1, 0, "tts start", ("the first words are ready: now speak", "第一段就绪：进入说话状态")),
        Arrow(1, 0, "llm · tts sentence_start", ("the face; text of the sentence", "表情；这一句的文字")),
        Arrow(1, 0, "Opus", PACED, audio=True),
        Arrow(
            1,
            0,
            "tts sentence_end · … · tts stop",
            ("when the last packet has been played", "最后一个包播完之后"),
        ),
        Arrow(0, 1, "listen start  mode auto", ("and so on", "如此往复")),
    ),
)

MANUAL = Diagram(
    "manual",
    ("Manual mode: push to talk", "手动模式：按住说话"),
    (
        "The button opens the microphone and ends the utterance; after the reply the device rests with the "
        "connection open.",
        "按键打开麦克风，松开结束这句话；回答之后设备空闲，连接保持打开。",
    ),
    (DEVICE, SERVER),
    (
        Note(0, ("button pressed", "按下按键")),
        Arrow(0, 1, "listen start  mode manual"),
        Arrow(0, 1, "Opus", EVERY_60_MS, audio=True),
        Note(0, ("button released", "松开按键")),
        Arrow(0, 1, "listen stop"),
        Arrow(1, 0, "stt · tts start"),
        Arrow(1, 0, "llm · tts sentence_start"),
        Arrow(1, 0, "Opus", PACED, audio=True),
        Arrow(1, 0, "tts sentence_end · tts stop"),
        Note(0, ("idle, connection open", "空闲，连接保持")),
    ),
)

REALTIME = Diagram(
    "realtime",
    ("Realtime mode: the user talks into the reply", "实时模式：用户打断回答"),
    (
        "The microphone stays open during the reply; when the server hears a voice it stops sending, judges it, "
        "and takes the new question, without another listen start.",
        "回答期间麦克风一直打开；服务器听到人声就停止发送并作判断，然后接收新的问题，不需要再次 listen start。",
    ),
    (DEVICE, SERVER),
    (
        Arrow(0, 1, "listen start  mode realtime", ("once", "只发一次")),
        Arrow(0, 1, "Opus", ("from now on without a break", "从此不间断"), audio=True),
        Arrow(1, 0, "stt"),
        Arrow(1, 0, "tts start · llm · tts sentence_start", ("when there is something to say", "有话要说时")),
        Arrow(1, 0, "Opus", PACED, audio=True),
        Arrow(
            0,
            1,
            "Opus",
            ("a voice, without the echo of the reply", "人声，不含回答的回声"),
            audio=True,
        ),
        Note(
            1,
            (
                "stop sending, judge the voice;\na cough: go on after a moment",
                "停止发送，判断人声；\n只是咳嗽：稍后继续",
            ),
        ),
        Arrow(1, 0, "tts stop", ("within a second, if somebody interrupts", "一秒之内，如果是打断")),
        Note(0, ("drop what is buffered;\nmicrophone stays open", "丢弃缓冲的声音；\n麦克风保持打开")),
        Arrow(0, 1, "Opus", ("the rest of the new question", "新问题的其余部分"), audio=True),
        Arrow(1, 0, "stt · tts start · …", ("its answer", "新的回答")),
    ),
)

ABORT = Diagram(
    "abort",
    ("Interruption by button or wake word", "用按键或唤醒词打断"),
    (
        "The device sends abort; the server sends no more audio of that reply and answers with tts stop.",
        "设备发送 abort；服务器不再发送这次回答的声音，并回复 tts stop。",
    ),
    (DEVICE, SERVER),
    (
        Arrow(1, 0, "tts start · llm · tts sentence_start"),
        Arrow(1, 0, "Opus", PACED, audio=True),
        Note(0, ("button or wake word", "按键或唤醒词")),
        Arrow(0, 1, "abort", ("reason: wake_word_detected, or none", "reason：wake_word_detected 或没有")),
        Arrow(1, 0, "tts stop", ("no audio of the old reply follows", "旧回答的声音不会再来")),
        Note(0, ("drop what is buffered", "丢弃缓冲的声音")),
        Arrow(0, 1, "listen start", ("to listen again (not in realtime mode)", "再次聆听（实时模式不需要）")),
    ),
)

JSON = Diagram(
    "json",
    ("The JSON dialect: everything is text", "JSON 方言：全部是文本"),
    (
        "device_info is answered by session_ready; audio travels as base64 in both directions, the last piece marked "
        "is_final.",
        "device_info 得到 session_ready；双向音频都是 base64，最后一段带 is_final。",
    ),
    (DEVICE, SERVER),
    (
        Arrow(0, 1, '{"type":"device_info",…}'),
        Arrow(1, 0, '{"type":"session_ready","session_id":…,"config":…}'),
        Arrow(0, 1, '{"type":"heartbeat","timestamp":…}', ("now and then", "定期发送")),
        Arrow(1, 0, '{"type":"heartbeat_ack","timestamp":…}'),
        Arrow(
            0,
            1,
            '{"type":"audio","data":…}',
            ("Opus or PCM; the first one opens the recording", "Opus 或 PCM；第一条开始录音"),
            audio=True,
        ),
        Arrow(
            0,
            1,
            '{"type":"audio","is_final":true}',
            ("optional: else the server finds the end", "可选：否则由服务器判断结束"),
        ),
        Arrow(1, 0, "stt · tts start · llm · tts sentence_start"),
        Arrow(1, 0, '{"type":"tts_audio","data":…,"is_final":false}', PACED, audio=True),
        Arrow(1, 0, '{"type":"tts_audio",…,"is_final":true}', ("20 ms of silence", "20 毫秒静音")),
        Arrow(1, 0, "tts stop"),
    ),
)

DIAGRAMS = (BOOT, AUTO, MANUAL, REALTIME, ABORT, JSON)

STYLE = """
    text { font-family: -apple-system, "Segoe UI", "Noto Sans", "PingFang SC", "Microsoft YaHei", "Noto Sans CJK SC", \
"WenQuanYi Micro Hei", sans-serif; fill: #1f2933; text-anchor: middle; }
    .card { fill: #ffffff; stroke: #d5dbe3; }
    .title { font-size: 17px; font-weight: 600; }
    .lane { fill: #e3eefb; stroke: #2463ae; stroke-width: 1.5; }
    .name { font-size: 14px; font-weight: 600; }
    .life { stroke: #b9c4d2; stroke-dasharray: 3 4; }
    .code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px; }
    .remark { font-size: 12px; fill: #4a5a6e; }
    .line { fill: none; stroke: #2463ae; stroke-width: 1.8; marker-end: url(#tip); }
    .tip { fill: #2463ae; }
    .audio { fill: none; stroke: #b06f0c; stroke-width: 3.5; stroke-dasharray: 9 4; marker-end: url(#wave); }
    .wave { fill: #b06f0c; }
    .note { fill: #fdf1dc; stroke: #b06f0c; }
    .said { font-size: 12.5px; }
    .across { stroke: #52667f; stroke-dasharray: 7 4; }
    .part { fill: #ffffff; }
    .where { font-size: 12.5px; font-weight: 600; fill: #4a5a6e; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e8edf3; }
      .card { fill: #141a22; stroke: #37424f; }
      .lane { fill: #1b3654; stroke: #79b0f0; }
      .life { stroke: #4a5a6e; }
      .remark, .where { fill: #b4c1d0; }
      .line { stroke: #79b0f0; }
      .tip { fill: #79b0f0; }
      .audio { stroke: #e0a84a; }
      .wave { fill: #e0a84a; }
      .note { fill: #47350f; stroke: #e0a84a; }
      .across { stroke: #9fb1c6; }
      .part { fill: #141a22; }
    }
"""


def draw(diagram: Diagram, language: str) -> str:
    """Return the SVG text of one diagram. ``language`` is one of `LANGUAGES`."""
    which = LANGUAGES.index(language)
    lanes = LANES[len(diagram.lanes)]
    body: list[str] = []
    y = TOP
    for step in diagram.steps:
        match step:
            case Arrow():
                body += _arrow(step, lanes, y, which)
            case Note():
                body += _note(step, lanes, y, which)
            case Section(text):
                body += _section(text[which], y)
        y += _height(step, which)
    height = y + 14
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-labelledby="title desc" lang="{language}">',
        f'  <title id="title">{escape(diagram.title[which])}</title>',
        f'  <desc id="desc">{escape(diagram.about[which])}</desc>',
        f"  <style>{STYLE}  </style>",
        f"  <defs>{_marker('tip', 8)}{_marker('wave', 4.5)}</defs>",
        f'  <rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="12"/>',
        f'  <text class="title" x="{WIDTH / 2:g}" y="30">{escape(diagram.title[which])}</text>',
    ]
    for x, name in zip(lanes, diagram.lanes, strict=True):
        head.append(f'  <line class="life" x1="{x}" y1="74" x2="{x}" y2="{height - 12}"/>')
        head.append(f'  <rect class="lane" x="{x - 86}" y="44" width="172" height="30" rx="8"/>')
        head.append(f'  <text class="name" x="{x}" y="64">{escape(name[which])}</text>')
    return "\n".join([*head, *body, "</svg>", ""])


def _marker(name: str, size: float) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="{size:g}" markerHeight="{size:g}" '
        f'orient="auto"><path class="{name}" d="M0 0 L10 5 L0 10 z"/></marker>'
    )


def _height(step: Step, which: int) -> int:
    match step:
        case Arrow():
            return ARROW_HEIGHT
        case Note(_, text):
            return 26 + NOTE_LINE * (text[which].count("\n") + 1)
        case Section():
            return 34


def _arrow(arrow: Arrow, lanes: tuple[int, ...], y: int, which: int) -> list[str]:
    step = 1 if arrow.target > arrow.source else -1
    begin, end = lanes[arrow.source] + 4 * step, lanes[arrow.target] - 4 * step
    middle = (begin + end) / 2
    kind = "audio" if arrow.audio else "line"
    drawn = [
        f'  <text class="code" x="{middle:g}" y="{y + 17}">{escape(arrow.code)}</text>',
        f'  <line class="{kind}" x1="{begin}" y1="{y + 24}" x2="{end}" y2="{y + 24}"/>',
    ]
    if arrow.remark[which]:
        drawn.append(
            f'  <text class="remark" x="{middle:g}" y="{y + 40}">{escape(arrow.remark[which])}</text>'
        )
    return drawn


def _note(note: Note, lanes: tuple[int, ...], y: int, which: int) -> list[str]:
    x = lanes[note.lane]
    lines = note.text[which].split("\n")
    left = min(max(x - NOTE_WIDTH / 2, 10), WIDTH - NOTE_WIDTH - 10)
    height = 12 + NOTE_LINE * len(lines)
    drawn = [f'  <rect class="note" x="{left:g}" y="{y + 8}" width="{NOTE_WIDTH}" height="{height}" rx="6"/>']
    middle = left + NOTE_WIDTH / 2
    for number, line in enumerate(lines):
        at = y + 27 + NOTE_LINE * number
        drawn.append(f'  <text class="said" x="{middle:g}" y="{at}">{escape(line)}</text>')
    return drawn


def _section(text: str, y: int) -> list[str]:
    # CJK characters are twice as wide as Latin ones.
    width = sum(13 if ord(char) > 0x2E80 else 7 for char in text) + 20
    return [
        f'  <line class="across" x1="14" y1="{y + 18}" x2="{WIDTH - 14}" y2="{y + 18}"/>',
        f'  <rect class="part" x="{WIDTH / 2 - width / 2:g}" y="{y + 8}" width="{width}" height="20"/>',
        f'  <text class="where" x="{WIDTH / 2:g}" y="{y + 22}">{escape(text)}</text>',
    ]


def pictures() -> dict[str, str]:
    """Return all pictures as file name → SVG text."""
    return {
        f"{diagram.name}{'' if language == 'en' else '.' + language}.svg": draw(diagram, language)
        for diagram in DIAGRAMS
        for language in LANGUAGES
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, svg in pictures().items():
        (folder / name).write_text(svg, "utf-8")
        print(folder / name)


if __name__ == "__main__":
    main()
