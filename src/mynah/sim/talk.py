"""`mynah talk`: a device on the command line."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mynah.audio.opus import packet_duration_ms
from mynah.audio.pcm import read_audio, write_wav
from mynah.errors import AudioError, ConfigError, MynahError
from mynah.sim.conversation import Conversation, Dialect, Said, Target, Turn, converse, converse_live
from mynah.sim.device import AudioFormat
from mynah.sim.discovery import DeviceIdentity
from mynah.sim.link import TokenRefusedError
from mynah.sim.microphone import FRAME_MS
from mynah.sim.pull4g.codec import Form
from mynah.sim.pull4g.conversation import PullTarget, converse_pull
from mynah.sim.pull4g.line import SCHEMES
from mynah.sim.recorder import describe
from mynah.sim.soundcard import SoundCard
from mynah.sim.state import Direction, Observer
from mynah.sim.timeline import Span
from mynah.sim.voice import DEFAULT_VOICE, language_of, speak
from mynah.sim.waterfall import draw
from mynah.wire.messages import DeviceMessage, ListenMode, ReceivedMessage
from mynah.wire.ota import PULL4G
from mynah.wire.pull4g import Codec

DEFAULT_OTA_URL = "http://127.0.0.1:8003/xiaozhi/ota/"
"""Where `mynah serve` listens on this machine unless told otherwise."""

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

MAX_TIMEOUT_S = 86_400.0
"""A day; who wants to wait longer has mistaken the unit."""

MAX_PHOTO_BYTES = 8_388_608
"""The memory of a device with a camera; a larger file is refused."""

MAX_SHOWN_CHARS = 200
"""Of the arguments of a tool; the rest is left out on the screen."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TalkOptions:
    """Arguments of `mynah talk`. One of ``wake``, ``text``, ``wav`` and ``mic`` must be given."""

    ota: str = ""
    url: str = ""
    text: tuple[str, ...] = ()
    """One turn each, in one conversation."""
    wav: tuple[Path, ...] = ()
    """Audio files of any kind, one turn each, after those of ``text``."""
    mic: bool = False
    wake: str = ""
    """Wake word to begin with."""
    json: bool = False
    save: Path | None = None
    waterfall: Path | None = None
    """SVG file to draw the turns into."""
    mode: ListenMode | None = None
    """None: auto; with the transport ``pull4g`` manual, as there is no other."""
    protocol: int | None = None
    """Framing version; None: what the server asks for."""
    transport: str = "ws"
    codec: Codec | None = None
    """Of the transport ``pull4g``, both ways; None: Opus in framed mode, PCM in plain mode."""
    framed: bool | None = None
    """Framed or plain mode of that transport; None: framed, unless ``codec`` is PCM."""
    dialect: Dialect = Dialect.XIAOZHI
    audio_format: AudioFormat = "opus"
    """Of the up-link in the JSON dialect."""
    iot: bool = False
    """Be firmware from before MCP."""
    photo: Path | None = None
    """Have a camera that sees this picture (JPEG)."""
    text_only: bool = False
    token: str = ""
    device_id: str = DeviceIdentity().device_id
    timeout: float = 30.0
    """Seconds to wait for an answer, and for somebody to enter the code of a new device."""
    lang: str = ""
    """``en`` or ``zh``; empty: by the script of the text."""
    voice: str = DEFAULT_VOICE
    insecure: bool = False
    """Take any TLS certificate, as cellular boards do."""


class TalkReport(msgspec.Struct):
    """What ``--json`` prints. The keys up to ``emotion`` are those of the last turn, ``audio_seconds`` is the sum."""

    ok: bool
    stt: str
    answer: str
    first_audio_ms: float | None
    audio_seconds: float
    emotion: str
    stages: dict[str, float]
    counters: dict[str, int]
    turns: list[Turn]
    messages: list[msgspec.Struct]
    timeline: list[Span]
    """Of the last turn."""
    error: str = ""


def run(options: TalkOptions) -> int:
    """Talk, and show it.

    Returns the exit code: 0 answered, 1 not, 2 wrong arguments (the reason is on stderr), 130 interrupted.
    """
    console = Console(quiet=options.json, highlight=False, soft_wrap=True)
    conversation, error, failed = Conversation(), "", EXIT_FAILED
    try:
        target = _target(options)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_talk(options, target, console, conversation))
        if options.save is not None and (conversation.played or conversation.pcm):
            write_wav(options.save, conversation.audio(), conversation.sample_rate)
            console.print(f"saved {escape(str(options.save))}")
        _draw(options, conversation, console)
        error = next((turn.error for turn in conversation.turns if turn.error), "")
    except ConfigError as failure:
        error, failed = str(failure), EXIT_USAGE
    except TokenRefusedError as failure:
        error = f"{failure}: {_token_advice(options)}"
    except MynahError as failure:
        error = str(failure)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return _interrupted(options, conversation, console)
    answered = conversation.ok and not error
    if options.json:
        sys.stdout.write(msgspec.json.encode(report(conversation, error)).decode() + "\n")
    else:
        for turn in conversation.turns:
            console.print(_table(conversation, turn))
    if not answered:
        print(error or "no answer came", file=sys.stderr)  # noqa: T201
    return EXIT_OK if answered else failed


def _interrupted(options: TalkOptions, conversation: Conversation, console: Console) -> int:
    """Draw what there was until Ctrl-C, which is how a conversation with a real microphone ends."""
    try:
        _draw(options, conversation, console)
    except ConfigError as failure:
        print(failure, file=sys.stderr)  # noqa: T201
    return EXIT_INTERRUPTED


def _draw(options: TalkOptions, conversation: Conversation, console: Console) -> None:
    """Draw the turns when that is wanted and there were any. Raises ConfigError when the file cannot be written."""
    if options.waterfall is None or not conversation.timelines:
        return
    try:
        options.waterfall.write_text(draw(conversation.timelines), "utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {options.waterfall}: {error.strerror}") from error
    console.print(f"saved {escape(str(options.waterfall))}")


def _token_advice(options: TalkOptions) -> str:
    """Say where another token comes from."""
    if options.url:
        return "pass --token, or --ota so that the server hands one out"
    if options.token:
        return "leave --token out: the OTA address hands one out"
    return "the OTA address handed it out: do both addresses belong to the same server?"


def report(conversation: Conversation, error: str = "") -> TalkReport:
    """Make the JSON report of a conversation; of an empty one when none came about."""
    last = conversation.turns[-1] if conversation.turns else Turn(said="")
    return TalkReport(
        ok=conversation.ok and not error,
        stt=last.stt,
        answer=last.answer,
        first_audio_ms=last.first_audio_ms,
        audio_seconds=round(sum(turn.audio_seconds for turn in conversation.turns), 3),
        emotion=last.emotion,
        stages={**conversation.stages, **last.stages},
        counters=msgspec.structs.asdict(conversation.counters),
        turns=conversation.turns,
        messages=list(conversation.messages),
        timeline=last.timeline,
        error=error,
    )


async def _talk(
    options: TalkOptions, target: Target | PullTarget, console: Console, record: Conversation
) -> None:
    if isinstance(target, PullTarget):
        said = await asyncio.to_thread(_prepare, options)
        screen = _Screen(console, pull=target.form)
        screen.start()
        await converse_pull(target, said, watcher=screen, record=record)
        screen.flush()
        return
    screen = _Screen(console, options.audio_format)
    if options.mic:
        await _talk_live(target, screen, record)
        return
    said = await asyncio.to_thread(_prepare, options)
    wake = await asyncio.to_thread(_wake_word, options) if options.wake else None
    screen.start()
    await converse(target, said, wake=wake, watcher=screen, record=record)
    screen.flush()


async def _talk_live(target: Target, screen: _Screen, record: Conversation) -> None:
    with SoundCard() as card:
        screen.start()
        screen.card = card
        await converse_live(target, card.next_frame, watcher=screen, on_turn=screen.show_turn, record=record)


def _check_said(options: TalkOptions) -> None:
    """Raise ConfigError when there is nothing to say, or no way to say it."""
    if not (options.text or options.wav or options.mic or options.wake):
        raise ConfigError("say something: pass --text, --wav, --wake or --mic")
    if not all(text.strip() for text in options.text):
        raise ConfigError("--text is empty: there is no text to speak")
    if options.wake and (options.mic or options.mode is ListenMode.MANUAL):
        raise ConfigError("--wake needs --mode auto or realtime, and no --mic")
    if options.mic and options.mode is ListenMode.MANUAL:
        raise ConfigError("--mic needs --mode auto or realtime: there is no button to release here")
    for file in (options.save, options.waterfall):
        if file is not None and not file.absolute().parent.is_dir():
            raise ConfigError(f"cannot write {file}: there is no folder {file.absolute().parent}")
    if options.waterfall is not None and options.waterfall.suffix.lower() != ".svg":
        raise ConfigError(
            f"--waterfall {options.waterfall}: it is drawn as SVG only, so the name ends in .svg"
        )


def _check_device(options: TalkOptions) -> None:
    """Raise ConfigError when there is no such device, or it cannot be used like this."""
    if options.transport not in {"ws", PULL4G}:
        raise ConfigError(f"the transport {options.transport} is not available: use ws or {PULL4G}")
    if options.ota and options.url:
        raise ConfigError("give either --ota or --url, not both")
    if options.transport == PULL4G:
        _check_pull(options)
    elif options.codec is not None or options.framed is not None:
        raise ConfigError(f"--codec, --framed and --plain need --transport {PULL4G}")
    elif urlsplit(options.url).scheme in SCHEMES:
        raise ConfigError(f"{options.url} is an address of the 4G pull protocol: add --transport {PULL4G}")
    if options.audio_format != "opus" and options.dialect is not Dialect.JSON:
        raise ConfigError(f"--audio-format {options.audio_format} needs --dialect json")
    if options.photo is not None and (options.iot or options.dialect is Dialect.JSON):
        raise ConfigError("--photo needs MCP: leave --iot and --dialect json out")
    if not 0 < options.timeout <= MAX_TIMEOUT_S:
        raise ConfigError(
            f"--timeout {options.timeout:g} makes no sense: more than 0 s, at most {MAX_TIMEOUT_S:g}"
        )


def _check_pull(options: TalkOptions) -> None:
    """Raise ConfigError for what the 4G pull protocol has no form for."""
    if options.mode not in {None, ListenMode.MANUAL}:
        raise ConfigError(
            f"--mode {options.mode}: with --transport {PULL4G} the button decides, so it is manual"
        )
    useless = {
        "--text-only": options.text_only,
        "--wake": bool(options.wake),
        "--mic": options.mic,
        "--protocol": options.protocol is not None,
        "--dialect json": options.dialect is Dialect.JSON,
        "--audio-format": options.audio_format != "opus",
        "--iot": options.iot,
        "--photo": options.photo is not None,
    }
    for name, given in useless.items():
        if given:
            raise ConfigError(
                f"{name} does not go with --transport {PULL4G}: such a device only records and plays"
            )


def form_of(codec: Codec | None, framed: bool | None) -> Form:
    """Return how a device of the pull protocol talks, where only a part of it was said. Raises ConfigError."""
    if framed is None:
        framed = codec is not Codec.PCM
    return Form(codec or (Codec.OPUS if framed else Codec.PCM), framed=framed).check()


def _picture(path: Path) -> bytes:
    """Read a JPEG file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            picture = file.read(MAX_PHOTO_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if not picture.startswith(b"\xff\xd8\xff"):
        raise ConfigError(f"{path} is no JPEG file: --photo takes nothing else, as cameras make nothing else")
    if len(picture) > MAX_PHOTO_BYTES:
        raise ConfigError(f"{path} has more than {MAX_PHOTO_BYTES} bytes: no device can hold it")
    return picture


def _target(options: TalkOptions) -> Target | PullTarget:
    """Turn the arguments into what to talk to. Blocking. Raises ConfigError when they make no sense."""
    _check_device(options)
    _check_said(options)
    language = options.lang or language_of("".join(options.text) or options.wake)
    identity = DeviceIdentity(
        device_id=options.device_id.lower(),
        language={"zh": "zh-CN", "en": "en-US"}.get(language, language),
    )
    ota = options.ota or ("" if options.url else DEFAULT_OTA_URL)
    if options.transport == PULL4G:
        return PullTarget(
            ota_url=ota,
            url=options.url,
            token=options.token,
            identity=identity,
            form=form_of(options.codec, options.framed),
            timeout_s=options.timeout,
            verify_tls=not options.insecure,
        )
    return Target(
        ota_url=ota,
        ws_url=options.url,
        token=options.token,
        identity=identity,
        mode=options.mode or ListenMode.AUTO,
        protocol=options.protocol,
        timeout_s=options.timeout,
        verify_tls=not options.insecure,
        dialect=options.dialect,
        audio_format=options.audio_format,
        iot=options.iot,
        photo=_picture(options.photo) if options.photo is not None else b"",
    )


def _prepare(options: TalkOptions) -> list[Said]:
    """Turn the arguments into speech. Blocking. Raises AudioError, and ConfigError for a file that is no audio."""
    said = [
        Said(text, None if options.text_only else speak(text, options.voice, language=options.lang))
        for text in options.text
    ]
    try:
        said += [Said(path.name, read_audio(path)) for path in options.wav]
    except AudioError as error:
        raise ConfigError(str(error)) from error
    return said


def _wake_word(options: TalkOptions) -> Said:
    """Speak the wake word. Blocking. Raises AudioError."""
    return Said(options.wake, speak(options.wake, options.voice, language=options.lang))


class _Screen(Observer):
    """Prints every message as it happens; audio in between is summed up in one line per direction."""

    def __init__(
        self, console: Console, audio_format: AudioFormat = "opus", *, pull: Form | None = None
    ) -> None:
        """``pull`` is the form of the pull protocol: of its audio, PCM is shown to us."""
        self._pull = pull
        self._format = {Direction.UP: "PCM" if audio_format == "pcm" else "Opus", Direction.DOWN: "Opus"}
        if pull is not None:
            named = {Codec.OPUS: "Opus", Codec.ADPCM: "ADPCM", Codec.PCM: "PCM"}[pull.codec]
            self._format = dict.fromkeys(Direction, named)
        self.card: SoundCard | None = None
        self._console = console
        self._code = ""
        self._started_at = 0.0
        self._packets = {Direction.UP: 0, Direction.DOWN: 0}
        self._seconds = {Direction.UP: 0.0, Direction.DOWN: 0.0}

    def start(self) -> None:
        """Begin to count time."""
        self._started_at = time.monotonic()

    def on_message(self, direction: Direction, message: DeviceMessage | ReceivedMessage, at_s: float) -> None:
        self.flush()
        at_ms = (at_s - self._started_at) * 1000
        seen = describe(direction, message, at_ms)
        words = [seen.type, seen.state, seen.mode, seen.method, seen.emotion, seen.reason]
        line = f"{_arrow(direction)} {' '.join(word for word in words if word):<22}"
        if seen.text:
            line += f" [bold]{escape(seen.text)}[/bold]"
        for call in seen.calls:
            arguments = msgspec.json.encode(call.arguments).decode()
            line = f"{line.rstrip()} {escape(call.name)} {escape(arguments[:MAX_SHOWN_CHARS])}"
        self._console.print(f"[dim]{at_ms:7.0f} ms[/dim] {line}")

    def on_audio(self, direction: Direction, packet: bytes, _at_s: float) -> None:
        self._packets[direction] += 1
        up = direction is Direction.UP  # where it may be PCM, and comes from our own microphone
        self._seconds[direction] += (FRAME_MS if up else self._received_ms(packet)) / 1000
        if direction is Direction.DOWN and self.card is not None:
            self.card.play(packet)

    def _received_ms(self, packet: bytes) -> float:
        return packet_duration_ms(packet) if self._pull is None else len(packet) / 2 / self._pull.rate * 1000

    def on_code(self, code: str, message: str) -> None:
        """Show the code, also where only JSON is wanted: somebody has to enter it."""
        if code != self._code:
            self._code = code
            print(f"this device has no owner yet: enter the code {code}", file=sys.stderr)  # noqa: T201
            self._console.print(f"[dim]{escape(message)}[/dim]")

    def flush(self) -> None:
        """Print the audio that went by since the last message."""
        for direction, packets in self._packets.items():
            if packets:
                seconds = self._seconds[direction]
                self._console.print(
                    f"[dim]           {_arrow(direction)} audio: {packets} × {self._format[direction]}, "
                    f"{seconds:.2f} s[/dim]"
                )
                self._packets[direction], self._seconds[direction] = 0, 0.0

    def show_turn(self, turn: Turn) -> None:
        """Print the table of one turn."""
        self.flush()
        self._console.print(_table(Conversation(), turn))


def _arrow(direction: Direction) -> str:
    return "[cyan]↑[/cyan]" if direction is Direction.UP else "[green]↓[/green]"


_STAGES = {
    "discover": "discover (OTA)",
    "connect": "connect",
    "hello": "hello",
    "stt": "end of speech → stt",
    "tts_start": "end of speech → tts start",
    "first_audio": "end of speech → first audio",
    "complete": "end of speech → reply complete",
}


def _table(conversation: Conversation, turn: Turn) -> Table:
    table = Table("stage", "time", title=escape(turn.answer or turn.error), title_justify="left")
    table.columns[1].justify = "right"
    for name, ms in {**conversation.stages, **turn.stages}.items():
        table.add_row(_STAGES[name], f"{ms:.0f} ms")
    table.add_row("audio", f"{turn.audio_seconds:.2f} s")
    table.add_row("late frames (> 5 ms)", str(turn.late_frames))
    for name, count in msgspec.structs.asdict(conversation.counters).items():
        if count:
            table.add_row(f"[red]{name}[/red]", str(count))
    return table
