"""Draw the sequence diagrams of docs/4g.md and its Chinese twin as SVG files.

    python3 scripts/draw_4g.py [folder]

Writes docs/images/4g-*.svg (English) and 4g-*.zh.svg, or into another folder. They look as `draw_protocol.py` says.
"""

from __future__ import annotations

import sys
from pathlib import Path

from draw_protocol import DEVICE, LANGUAGES, SERVER, Arrow, Diagram, Note, Section, draw

FOLDER = Path(__file__).parent.parent / "docs" / "images"

LOST = ("the link is lost", "链路断开")
EVERY_500_MS = ("500 ms after the poll before", "距上一次轮询 500 毫秒")

TURN = Diagram(
    "4g-turn",
    ("A turn in plain mode", "普通模式下的一轮对话"),
    (
        "The device sends SESSION_START, the recording and RECORDING_COMPLETE, then polls twice a second; each poll is "
        "answered with AUDIO_START, what there is, and AUDIO_END.",
        "设备发送 SESSION_START、录音和 RECORDING_COMPLETE，然后每秒轮询两次；"
        "每次轮询得到 AUDIO_START、现有的音频和 AUDIO_END。",
    ),
    (DEVICE, SERVER),
    (
        Note(0, ("connected ahead of time;\nbutton pressed", "连接早已建立；\n按下按键")),
        Arrow(0, 1, "SESSION_START:a1b2c3d4e5f6", ("no answer in plain mode", "普通模式下没有回答")),
        Arrow(
            0, 1, "PCM", ("while it is recorded, in pieces of any size", "边录边发，分段大小随意"), audio=True
        ),
        Note(0, ("button released", "松开按键")),
        Arrow(0, 1, "RECORDING_COMPLETE"),
        Arrow(0, 1, "REQUEST_AUDIO:a1b2c3d4e5f6", ("at once", "立即")),
        Note(1, ("recognise, think, speak", "识别、思考、合成")),
        Arrow(1, 0, "AUDIO_START AUDIO_END", ("nothing ready within 450 ms", "450 毫秒之内没有音频")),
        Arrow(0, 1, "REQUEST_AUDIO:a1b2c3d4e5f6", EVERY_500_MS),
        Arrow(1, 0, "AUDIO_START"),
        Arrow(
            1,
            0,
            "PCM",
            ("as it is made, up to 4 s ahead of the speaker", "边合成边发，最多领先扬声器 4 秒"),
            audio=True,
        ),
        Arrow(1, 0, "AUDIO_END"),
        Note(0, ("plays, and goes on polling", "播放，同时继续轮询")),
        Arrow(0, 1, "REQUEST_AUDIO:a1b2c3d4e5f6", EVERY_500_MS),
        Arrow(
            1,
            0,
            "AUDIO_START … AUDIO_END",
            ("and so on; empty pairs when all was fetched", "如此往复；取完之后只有空对"),
            audio=True,
        ),
        Note(
            0,
            (
                "30 s after the last button:\nstop polling, stay connected",
                "最后一次按键 30 秒后：\n停止轮询，保持连接",
            ),
        ),
    ),
)

POLL = Diagram(
    "4g-poll",
    ("How long a poll is held", "一次轮询会等待多久"),
    (
        "A poll is answered at once when nothing is on its way, held up to 450 ms when audio is about to come, and "
        "ended early when the device is 4 s ahead of its speaker.",
        "没有音频要来时立即回答；音频即将到来时最多等待 450 毫秒；设备领先扬声器 4 秒时提前结束。",
    ),
    (DEVICE, SERVER),
    (
        Section(("nothing is on its way", "没有音频要来")),
        Arrow(0, 1, "REQUEST_AUDIO"),
        Arrow(1, 0, "AUDIO_START AUDIO_END", ("at once", "立即")),
        Section(("an answer is in the making", "回答正在生成")),
        Arrow(0, 1, "REQUEST_AUDIO"),
        Note(1, ("held; after 120 ms\nthe first audio exists", "等待；120 毫秒后\n有了第一段音频")),
        Arrow(
            1, 0, "AUDIO_START", ("the moment it exists, not at the next poll", "一有就发，不等下一次轮询")
        ),
        Arrow(1, 0, "PCM", ("whatever is made meanwhile", "期间合成的全部音频"), audio=True),
        Arrow(1, 0, "AUDIO_END", ("450 ms after the poll", "距轮询 450 毫秒")),
        Section(("the device has 4 s in store", "设备已存有 4 秒")),
        Arrow(0, 1, "REQUEST_AUDIO"),
        Arrow(
            1, 0, "AUDIO_START", ("what was played since the poll before", "补上自上次轮询以来播放掉的部分")
        ),
        Arrow(1, 0, "PCM", ("0.5 s of audio", "0.5 秒的音频"), audio=True),
        Arrow(1, 0, "AUDIO_END", ("at once: again 4 s ahead", "立即：又领先 4 秒")),
    ),
)

INTERRUPT = Diagram(
    "4g-interrupt",
    ("Interrupting", "打断"),
    (
        "The device sends INTERRUPT while a poll is being answered. Audio that was on its way ends with AUDIO_END and "
        "is dropped; what comes after it belongs to the new turn.",
        "设备在一次轮询得到回答期间发送 INTERRUPT。还在路上的音频以 AUDIO_END 结束并被丢弃；之后的都属于新的一轮。",
    ),
    (DEVICE, SERVER),
    (
        Arrow(0, 1, "REQUEST_AUDIO:a1b2c3d4e5f6"),
        Arrow(1, 0, "AUDIO_START"),
        Arrow(1, 0, "PCM", ("the old answer", "旧的回答"), audio=True),
        Note(0, ("button pressed:\nspeaker off, store emptied", "按下按键：\n关闭扬声器，清空缓存")),
        Arrow(0, 1, "INTERRUPT:a1b2c3d4e5f6"),
        Arrow(1, 0, "PCM", ("was on its way: drop it", "已在路上：丢弃"), audio=True),
        Arrow(1, 0, "AUDIO_END", ("the old answer ends here", "旧的回答到此为止")),
        Arrow(
            0, 1, "SESSION_START:a1b2c3d4e5f6", ("may follow INTERRUPT at once", "可以紧跟在 INTERRUPT 之后")
        ),
        Arrow(0, 1, "PCM", ("the new question", "新的问题"), audio=True),
        Arrow(0, 1, "RECORDING_COMPLETE"),
        Arrow(0, 1, "REQUEST_AUDIO:a1b2c3d4e5f6"),
        Arrow(
            1, 0, "AUDIO_START … AUDIO_END", ("the new answer and nothing else", "只有新的回答"), audio=True
        ),
    ),
)

DOWNLOAD = Diagram(
    "4g-lost-download",
    ("A link that is lost while an answer is fetched", "取回答时链路断开"),
    (
        "In framed mode the device counts the bytes of the reply. After reconnecting it polls with from= and that "
        "count, and the server goes on at that byte.",
        "分帧模式下设备统计回答的字节数。重新连接后带 from= 和这个数轮询，服务器从这个字节继续。",
    ),
    (DEVICE, SERVER),
    (
        Arrow(0, 1, "REQUEST_AUDIO:a1b2c3d4e5f6", ("framed mode", "分帧模式")),
        Arrow(1, 0, "AUDIO_START"),
        Arrow(1, 0, "audio 0 – 32 000", ("", ""), audio=True),
        Arrow(
            0, 1, "acknowledge 20 000", ("optional: the server may forget these", "可选：服务器不必再保留")
        ),
        Section(LOST),
        Note(0, ("24 000 bytes have arrived;\nplays what it has", "收到了 24 000 字节；\n继续播放已有的")),
        Note(1, ("the reply waits for 60 s", "回答保留 60 秒")),
        Section(("connected again, after 1, 2, 4 … 30 s", "1、2、4……30 秒之后重新连接")),
        Arrow(
            0,
            1,
            "REQUEST_AUDIO:a1b2c3d4e5f6;frame=1;from=24000",
            ("and codec, rate as before", "codec、rate 与之前相同"),
        ),
        Arrow(1, 0, "SESSION_READY:7f3c…"),
        Arrow(1, 0, "AUDIO_START"),
        Arrow(
            1,
            0,
            "audio 24 000 – …",
            ("not one is missing, none comes twice", "一个不少，一个不重"),
            audio=True,
        ),
        Arrow(1, 0, "AUDIO_END (flags 1)", ("the reply is complete", "回答完整")),
    ),
)

UPLOAD = Diagram(
    "4g-lost-upload",
    ("A link that is lost during a recording", "录音时链路断开"),
    (
        "After reconnecting, the device tells with from= how much it has sent. The server tells in a frame of type 3 "
        "how much it has, and the device goes on there.",
        "重新连接后，设备用 from= 说明已发送多少。服务器用类型 3 的帧说明已收到多少，设备从那里继续。",
    ),
    (DEVICE, SERVER),
    (
        Arrow(0, 1, "SESSION_START:a1b2c3d4e5f6;codec=adpcm;frame=1"),
        Arrow(1, 0, "SESSION_READY:7f3c…"),
        Arrow(1, 0, "received 0"),
        Arrow(0, 1, "audio 0 – 12 000", ("", ""), audio=True),
        Section(LOST),
        Note(0, ("goes on recording,\nkeeps the bytes", "继续录音，\n保留数据")),
        Note(1, ("waits for 10 s, then answers\nwhat there is", "等待 10 秒，\n然后回答已有部分")),
        Section(("connected again", "重新连接")),
        Arrow(
            0,
            1,
            "SESSION_START:a1b2c3d4e5f6;codec=adpcm;frame=1;from=12000",
            ("so much was sent", "已发送这么多"),
        ),
        Arrow(1, 0, "SESSION_READY:7f3c…"),
        Arrow(
            1,
            0,
            "received 9 000",
            ("the last 3 000 bytes were lost with the link", "最后 3 000 字节随链路丢失"),
        ),
        Arrow(
            0,
            1,
            "SESSION_START:a1b2c3d4e5f6;codec=adpcm;frame=1;from=9000",
            ("answered in the same way", "得到同样的回答"),
        ),
        Arrow(
            0,
            1,
            "audio 9 000 – 30 000",
            ("as fast as the link takes it", "链路能发多快就发多快"),
            audio=True,
        ),
        Arrow(0, 1, "RECORDING_COMPLETE"),
        Arrow(1, 0, "received 30 000", ("everything has arrived", "全部收到")),
    ),
)

DIAGRAMS = (TURN, POLL, INTERRUPT, DOWNLOAD, UPLOAD)


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
