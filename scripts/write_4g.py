"""Write the byte examples and the table of data volumes of docs/4g.md and its Chinese twin.

    .venv/bin/python scripts/write_4g.py

Replaces what stands behind each mark ``<!-- 4g name -->`` of the pages: a table or a code block. The bytes come
from the code that devices and server are tested with (`mynah.wire.pull4g`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from mynah.audio.opus import SPEECH_BITRATE
from mynah.wire import pull4g as w
from mynah.wire.pull4g import Codec, Options

DOCS: Final = Path(__file__).parent.parent / "docs"
PAGES: Final = {"en": DOCS / "4g.md", "zh": DOCS / "zh" / "4g.md"}
MARK: Final = re.compile(r"(<!-- 4g ([\w-]+) -->\n\n)(```\w*\n.*?\n```|\|.*?)(?=\n\n|\n*\Z)", re.DOTALL)

CHIP: Final = "a1b2c3d4e5f6"
SESSION: Final = "7f3c9a"
RECORDED: Final = bytes.fromhex("0100feff03000500")
REPLY: Final = bytes.fromhex("10002100f3ffe0ff")

Text = tuple[str, str]
"""The same words in English and in Chinese."""


class Step(NamedTuple):
    """What one side sends. ``device`` says which; a step without bytes is something that happens."""

    device: bool
    data: bytes
    text: Text


def up(data: bytes, english: str, chinese: str) -> Step:
    return Step(True, data, (english, chinese))


def down(data: bytes, english: str, chinese: str) -> Step:
    return Step(False, data, (english, chinese))


# ---------------------------------------------------------------- the examples

DEFAULT: Final = Options()
ADPCM: Final = Options(codec=Codec.ADPCM, framed=True)

PLAIN: Final = (
    up(w.device_start(CHIP, DEFAULT, False), "a recording begins", "开始录音"),
    up(RECORDED, "its audio, here four samples", "录音的音频，这里是四个采样"),
    up(w.device_complete(False), "the recording is complete", "录音结束"),
    up(w.device_request(CHIP, DEFAULT, False), "poll", "轮询"),
    down(w.audio_start(False) + REPLY + w.audio_end(False), "audio is there", "有音频"),
    up(w.device_request(CHIP, DEFAULT, False), "poll", "轮询"),
    down(w.audio_start(False) + w.audio_end(False), "nothing is there", "没有音频"),
    up(w.device_interrupt(CHIP, False), "stop", "停止"),
    up(w.device_keep_alive(False), "stay connected", "保持连接"),
    up(w.device_complete(False), "a mistake: no recording has begun", "错误：没有开始录音"),
    down(
        w.error(w.ErrorCode.NO_SESSION, "send SESSION_START first", False),
        "so it is told",
        "于是被告知",
    ),
)

FRAMED: Final = (
    up(
        w.device_start(CHIP, ADPCM, False),
        "a line; frames follow it",
        "一行文本，之后是帧",
    ),
    down(w.ready(SESSION, False), "a line; frames follow it", "一行文本，之后是帧"),
    down(w.received(0), "type 3: of the recording 0 bytes were received", "类型 3：录音已收到 0 字节"),
    up(w.device_audio(bytes.fromhex("0770919b"), True), "type 2: audio, 4 bytes", "类型 2：音频，4 字节"),
    up(w.device_complete(True), "type 1: the recording is complete", "类型 1：录音结束"),
    down(w.received(4), "type 3: all 4 bytes were received", "类型 3：4 字节全部收到"),
    up(w.device_request(CHIP, Options(framed=False), True), "poll", "轮询"),
    down(w.audio_start(True), "the answer to the poll begins", "对轮询的回答开始"),
    down(w.audio(REPLY[:5], True), "bytes 0 to 5 of the reply", "答复的第 0 至 5 字节"),
    up(w.device_acknowledge(5), "type 3: 5 bytes were played or stored", "类型 3：5 字节已播放或存好"),
    down(b"", "the link is lost here; a new connection begins", "链路在此断开；建立新的连接"),
    up(
        w.device_request(CHIP, Options(codec=Codec.ADPCM, framed=True, offset=5), False),
        "a line: poll, from byte 5 on",
        "一行文本：从第 5 字节起轮询",
    ),
    down(w.ready(SESSION, False), "a line; frames follow it", "一行文本，之后是帧"),
    down(w.audio_start(True), "the answer begins", "回答开始"),
    down(w.audio(REPLY[5:], True), "bytes 5 to 8", "第 5 至 8 字节"),
    down(w.audio_end(True, final=True), "flags 1: the reply is complete", "flags 1：答复完整"),
)


def dump(steps: tuple[Step, ...], language: int) -> str:
    """Return what goes over the wire as a code block, 16 bytes a row."""
    rows = []
    for step in steps:
        if not step.data:
            rows.append(f"⚡ {step.text[language]}")
        head, remark = "→" if step.device else "←", step.text[language]
        for at in range(0, len(step.data), 16):
            piece = step.data[at : at + 16]
            shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in piece)
            rows.append(f"{head} {piece.hex(' '):<47}  {shown:<16}  {remark}".rstrip())
            head, remark = " ", ""
    return "\n".join(["```text", *rows, "```"])


def modem(language: int) -> str:
    """Return a poll as the modem is told it, and its answer as the modem tells it."""
    poll = w.device_request(CHIP, DEFAULT, False)
    answer = w.audio_start(False) + w.audio_end(False)
    rows = (
        ("→", f"AT+MIPSEND=0,{len(poll)},{poll.hex().upper()}", ("the poll", "轮询")),
        ("←", "OK", ("the modem has it", "模块已收下")),
        ("←", f"+MIPSEND: 0,{len(poll)}", ("now the next piece may be sent", "现在可以发下一段")),
        ("←", f'+MIPURC: "rtcp",0,{len(answer)},{answer.hex().upper()}', ("AUDIO_START AUDIO_END",) * 2),
    )
    return "\n".join(
        ["```text", *(f"{arrow} {line}   ({text[language]})" for arrow, line, text in rows), "```"]
    )


# ---------------------------------------------------------------- data volumes

PIECE_BYTES: Final = 730
"""What a modem sends with one command: a TCP segment of its own."""
SEGMENT_BYTES: Final = 1400
"""The longest segment that mobile networks carry whole."""
HEADER_BYTES: Final = 40
"""IPv4 and TCP, without options; also what the acknowledgement of a segment has, in the other direction."""
FRAME_MS: Final = 60
POLLS_S: Final = 2.0
KEEP_ALIVE_S: Final = 60.0
DAY_S: Final = 86400.0


class Form(NamedTuple):
    """A way to carry audio. ``rate`` in Hz."""

    codec: Codec
    rate: int
    framed: bool

    @property
    def byte_rate(self) -> float:
        """Audio alone, in bytes per second."""
        return {Codec.PCM: self.rate * 2.0, Codec.ADPCM: self.rate / 2, Codec.OPUS: SPEECH_BITRATE / 8}[
            self.codec
        ]


FORMS: Final = (
    Form(Codec.PCM, 16000, False),
    Form(Codec.ADPCM, 16000, False),
    Form(Codec.ADPCM, 16000, True),
    Form(Codec.ADPCM, 8000, True),
    Form(Codec.OPUS, 16000, True),
)


def segments(size: float, longest: int) -> int:
    return math.ceil(size / longest)


def carried(size: float, count: float) -> float:
    """Return what ``size`` bytes in ``count`` segments cost, with an acknowledgement of each."""
    return size + count * 2 * HEADER_BYTES


def upload(form: Form, seconds: float) -> float:
    """Return the bytes over the air, both directions together, for a recording of ``seconds``."""
    if form.codec is Codec.OPUS:  # one packet in each frame, one frame in each piece
        count = seconds * 1000 / FRAME_MS
        return carried(form.byte_rate * seconds + count * len(w.device_audio(b"-", True)) - count, count)
    frame = len(w.device_audio(b"-", form.framed)) - 1
    count = segments(form.byte_rate * seconds, PIECE_BYTES - frame)
    return carried(form.byte_rate * seconds + count * frame, count)


def download(form: Form, seconds: float) -> float:
    """Return the bytes over the air, both directions together, for an answer of ``seconds`` and its polls."""
    packet = form.byte_rate * FRAME_MS / 1000 + len(w.audio(b"-", form.framed)) - 1
    frames = seconds * 1000 / FRAME_MS
    return carried(packet * frames, frames * segments(packet, SEGMENT_BYTES)) + seconds * POLLS_S * poll(form)


def poll(form: Form) -> float:
    """Return the bytes over the air that a poll and the two lines that answer it cost."""
    asked = w.device_request(CHIP, DEFAULT, form.framed) + (w.device_acknowledge(0) if form.framed else b"")
    lines = (w.audio_start(form.framed), w.audio_end(form.framed))
    return carried(len(asked), 1) + sum(carried(len(line), 1) for line in lines)


def volumes(language: int) -> str:
    """Return the table of what a minute costs in KB (of 1000 bytes)."""
    heads = (
        (
            "form",
            "audio alone, per minute",
            "recording, per minute",
            "answer, per minute",
            "3 s question, 6 s answer",
        ),
        ("形式", "纯音频，每分钟", "录音，每分钟", "回答，每分钟", "3 秒提问加 6 秒回答"),
    )
    words = ((", framed", ", plain"), ("，分帧", "，普通"))[language]
    rows = ["| " + " | ".join(heads[language]) + " |", "|---|--:|--:|--:|--:|"]
    for form in FORMS:
        name = f"`codec={form.codec}`, {form.rate // 1000} kHz{words[0 if form.framed else 1]}"
        if language:
            name = name.replace("`, ", "`，")
        figures = (
            form.byte_rate * 60,
            upload(form, 60),
            download(form, 60),
            upload(form, 3) + download(form, 6),
        )
        rows.append(f"| {name} | " + " | ".join(f"{kilobytes(figure)} KB" for figure in figures) + " |")
    return "\n".join(rows)


def day(language: int) -> str:
    """Return the table of what a day without a word costs."""
    plain = FORMS[0]
    awake = DAY_S / KEEP_ALIVE_S * carried(len(w.device_keep_alive(False)), 1)
    rows = (
        (("the connection is closed, and opened when the button is pressed", "断开连接，按键时再打开"), 0.0),
        (("it is kept: an empty line every 60 s", "保持连接：每 60 秒一个空行"), awake),
        (
            ("polled all day, twice a second: do not", "整天每秒轮询两次：不要这样"),
            DAY_S * POLLS_S * poll(plain),
        ),
    )
    head = ("| a device at rest | per day |", "| 空闲的设备 | 每天 |")[language]
    return "\n".join(
        [head, "|---|--:|", *(f"| {text[language]} | {kilobytes(size)} KB |" for text, size in rows)]
    )


def kilobytes(size: float) -> str:
    """Write a figure to three digits: what stands behind them depends on the network."""
    told = size / 1000
    digits = max(0, math.floor(math.log10(told)) - 2) if told >= 1 else 0
    return f"{round(told / 10**digits) * 10**digits:,}".replace(",", " ")


# ---------------------------------------------------------------- the pages

PARTS: Final[dict[str, Callable[[int], str]]] = {
    "plain": lambda language: dump(PLAIN, language),
    "framed": lambda language: dump(FRAMED, language),
    "modem": modem,
    "volumes": volumes,
    "day": day,
}


def rendered(page: str, language: str) -> str:
    """Return a page with its marked parts written anew."""
    which = ("en", "zh").index(language)
    return MARK.sub(lambda found: found[1] + PARTS[found[2]](which), page)


def main() -> None:
    for language, path in PAGES.items():
        path.write_text(rendered(path.read_text("utf-8"), language), "utf-8")
        print(path)


if __name__ == "__main__":
    main()
