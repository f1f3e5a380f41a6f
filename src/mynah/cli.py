"""The `mynah` command: argument parsing only. What a command needs is imported when it runs, so help is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from mynah import __version__
from mynah.errors import ConfigError, MynahError

if TYPE_CHECKING:
    from mynah.config import Settings

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="mynah",
    help="A self-hosted voice assistant for ESP32 devices that speak the xiaozhi protocol.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help takes half the time to appear
)
config_app = typer.Typer(help="Look at and check the settings.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "-c", "--config", metavar="FILE", help="Settings file; else data/.config.yaml, else config.yaml."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "-s", "--set", metavar="KEY=VALUE", help="Override a setting, e.g. server.port=8000. Repeatable."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

# Of `mynah talk`:
OtaOption = Annotated[str, typer.Option(help="OTA address to ask for the server, as a device does at boot.")]
MicOption = Annotated[bool, typer.Option("--mic", help="Use this machine's microphone and loudspeaker.")]
TransportOption = Annotated[Literal["ws", "mqtt", "pull4g"], typer.Option(help="How to reach the server.")]
ModeOption = Annotated[
    Literal["auto", "manual", "realtime"] | None,
    typer.Option(help="Who ends an utterance; auto, with pull4g manual."),
]
CodecOption = Annotated[
    Literal["pcm", "adpcm", "opus"] | None,
    typer.Option(help="Audio of pull4g, both ways; opus, if --plain pcm."),
]
FramedOption = Annotated[
    bool | None, typer.Option("--framed/--plain", help="Framed or plain mode of pull4g.", show_default=False)
]
DialectOption = Annotated[
    Literal["xiaozhi", "json"], typer.Option(help="Protocol: xiaozhi, or the one with everything as JSON.")
]
AudioFormatOption = Annotated[
    Literal["opus", "pcm"], typer.Option(help="What the JSON dialect sends as audio.")
]
IotOption = Annotated[bool, typer.Option("--iot", help="Be old firmware, with IoT things instead of MCP.")]
LanguageOption = Annotated[
    Literal["en", "zh"] | None, typer.Option(help="Language of the text; else by its script.")
]
PhotoOption = Annotated[
    Path | None, typer.Option(help="Have a camera that sees this picture (JPEG) when the server asks.")
]
TextOption = Annotated[
    list[str] | None, typer.Option(help="Say this (spoken by flite or eSpeak). Repeatable.")
]
WaterfallOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Draw the turns and how long each part took (SVG).")
]
TextOnlyOption = Annotated[bool, typer.Option("--text-only", help="Send the text as text, without speech.")]

# Of `mynah loadtest`:
ScenarioOption = Annotated[
    str, typer.Option(metavar="NAME|FILE", help="quick, standard, stress, extreme, or a YAML file.")
]
BehaviourOption = Annotated[
    Literal["idle", "talk", "mixed", "churn"] | None, typer.Option(help="What the devices do.")
]
LoadTransportOption = Annotated[
    Literal["ws", "pull4g"] | None, typer.Option(help="How devices reach the server.")
]
DevicesOption = Annotated[
    int | None, typer.Option(min=1, help="Devices of the last step; larger steps before it are left out.")
]
StepsOption = Annotated[str, typer.Option(metavar="N,M", help="Exactly these steps, in devices.")]
DurationOption = Annotated[float | None, typer.Option(help="Seconds that each step is held.")]
RateOption = Annotated[float | None, typer.Option(help="Connections per second.")]
PidOption = Annotated[int | None, typer.Option(help="Process of the server, if it is on this machine.")]
ProcessesOption = Annotated[int, typer.Option(min=0, max=64, help="Processes with devices; 0: as needed.")]
OtaOnceOption = Annotated[bool, typer.Option("--ota-once", help="Ask the OTA address once per process.")]
ReportOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder for the report; '' for none, else one with the time."),
]
CheckOption = Annotated[bool, typer.Option("--check", help="Only look whether this machine is up to it.")]
CompareOption = Annotated[
    tuple[Path, Path] | None,
    typer.Option(metavar="BEFORE AFTER", help="Compare two reports (JSON or their folders)."),
]


def main() -> NoReturn:
    """Run the command line. Problems an operator can mend are one line on standard error, never a traceback."""
    try:
        app()
    except ConfigError as error:
        _fail(error, EXIT_CONFIG)
    except MynahError as error:
        _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output is gone (`mynah … | head`); Python must not complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    sys.exit(0)


def _fail(error: Exception, code: int) -> NoReturn:
    print(f"mynah: {error}", file=sys.stderr)
    sys.exit(code)


def _settings(config: Path | None, overrides: list[str] | None) -> Settings:
    from mynah.config import load

    return load(config, overrides or ())


def _version(wanted: bool) -> None:
    if wanted:
        print(f"mynah {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(config: ConfigOption = None, set_: SetOption = None) -> None:
    """Start the server. Prints a READY line when it accepts devices; Ctrl-C stops it."""
    settings = _settings(config, set_)
    from mynah.app import run

    raise typer.Exit(run(settings))


@app.command()
def talk(
    ota: OtaOption = "",
    url: Annotated[str, typer.Option(help="Address to connect to, instead of asking an OTA address.")] = "",
    text: TextOption = None,
    wav: Annotated[
        list[Path] | None, typer.Option(help="Play an audio file into the microphone. Repeatable.")
    ] = None,
    mic: MicOption = False,
    wake: Annotated[str, typer.Option(help="Say this wake word first, and hear the greeting out.")] = "",
    json: JsonOption = False,
    save: Annotated[Path | None, typer.Option(help="Write the spoken reply to a WAV file.")] = None,
    waterfall: WaterfallOption = None,
    mode: ModeOption = None,
    protocol: Annotated[int | None, typer.Option(min=1, max=3, help="Framing version of audio.")] = None,
    transport: TransportOption = "ws",
    codec: CodecOption = None,
    framed: FramedOption = None,
    dialect: DialectOption = "xiaozhi",
    audio_format: AudioFormatOption = "opus",
    iot: IotOption = False,
    photo: PhotoOption = None,
    text_only: TextOnlyOption = False,
    token: Annotated[str, typer.Option(help="Access token; normally it comes from the OTA address.")] = "",
    device_id: Annotated[str | None, typer.Option(help="Device-Id to present (a MAC address).")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for an answer.")] = None,
    lang: LanguageOption = None,
    voice: Annotated[str | None, typer.Option(help="Voice that speaks the text.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any TLS certificate.")] = False,
) -> None:
    """Be a device: speak to a server, show the messages and how long each stage took."""
    from mynah.sim.conversation import Dialect
    from mynah.sim.talk import TalkOptions, run
    from mynah.wire.messages import ListenMode
    from mynah.wire.pull4g import Codec

    given: dict[str, Any] = {"device_id": device_id, "timeout": timeout, "voice": voice, "lang": lang}
    given |= {"mode": mode and ListenMode(mode), "codec": codec and Codec(codec)}
    options = TalkOptions(
        ota=ota,
        url=url,
        text=tuple(text or ()),
        wav=tuple(wav or ()),
        mic=mic,
        wake=wake,
        json=json,
        save=save,
        waterfall=waterfall,
        protocol=protocol,
        transport=transport,
        framed=framed,
        dialect=Dialect(dialect),
        audio_format=audio_format,
        iot=iot,
        photo=photo,
        text_only=text_only,
        token=token,
        insecure=insecure,
        **{name: value for name, value in given.items() if value is not None},
    )
    raise typer.Exit(run(options))


@app.command()
def demo() -> None:
    """Start a server on free ports, talk to it, and show transcript, answer and latencies."""
    from mynah.demo import run

    raise typer.Exit(run())


@app.command()
def bench(
    json: JsonOption = False,
    only: Annotated[list[str] | None, typer.Option(help="Run only this measurement. Repeatable.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the JSON to a file as well.")
    ] = None,
) -> None:
    """Measure what the parts of the server cost on this machine."""
    from mynah.bench import run

    raise typer.Exit(run(json, only, output))


@app.command()
def loadtest(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="WebSocket, pull4g or OTA address of a server.")
    ] = "",
    scenario: ScenarioOption = "quick",
    behaviour: BehaviourOption = None,
    devices: DevicesOption = None,
    steps: StepsOption = "",
    duration: DurationOption = None,
    rate: RateOption = None,
    mode: ModeOption = None,
    transport: LoadTransportOption = None,
    codec: CodecOption = None,
    framed: FramedOption = None,
    protocol: Annotated[int | None, typer.Option(min=1, max=3, help="Framing version of audio.")] = None,
    token: Annotated[str, typer.Option(help="Access token; normally it comes from the OTA address.")] = "",
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any TLS certificate.")] = False,
    pid: PidOption = None,
    processes: ProcessesOption = 0,
    ota_once: OtaOnceOption = False,
    report: ReportOption = None,
    json: JsonOption = False,
    check: CheckOption = False,
    compare: CompareOption = None,
) -> None:
    """Be thousands of devices: find out how many a server can hold, and what happens when there are more."""
    from mynah.sim.load.command import LoadtestOptions, main
    from mynah.sim.load.scenario import Behaviour, Transport
    from mynah.wire.messages import ListenMode
    from mynah.wire.pull4g import Codec

    options = LoadtestOptions(
        url=url,
        scenario=scenario,
        behaviour=Behaviour(behaviour) if behaviour else None,
        devices=devices,
        steps=steps,
        duration_s=duration,
        rate=rate,
        mode=ListenMode(mode) if mode else None,
        transport=Transport(transport) if transport else None,
        codec=Codec(codec) if codec else None,
        framed=framed,
        protocol=protocol,
        token=token,
        insecure=insecure,
        pid=pid,
        processes=processes,
        ota_once=ota_once,
        report=report,
        json=json,
        check=check,
        compare=compare,
    )
    raise typer.Exit(main(options))


@app.command()
def providers(
    name: Annotated[str, typer.Argument(help="Show the options of one, e.g. LLM.openai.")] = "",
    json: JsonOption = False,
) -> None:
    """List the AI services that can be configured, or the options of one."""
    from mynah.listing import show_options, show_providers

    if name:
        show_options(name, json)
    else:
        show_providers(json)


@app.command()
def doctor(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """Check whether this machine has what the server needs."""
    from mynah.doctor import run

    raise typer.Exit(run(config, tuple(set_ or ()), json))


@config_app.command("show")
def config_show(config: ConfigOption = None, set_: SetOption = None, json: JsonOption = False) -> None:
    """Print the settings in effect as YAML, secrets masked."""
    from mynah.listing import show_settings

    show_settings(_settings(config, set_), json)


@config_app.command("validate")
def config_validate(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Settings file; else the default ones.")
    ] = None,
    set_: SetOption = None,
) -> None:
    """Say everything that is wrong with a settings file; exit code 2 if anything is."""
    from mynah.listing import validate

    raise typer.Exit(validate(file, tuple(set_ or ())))


@config_app.command("reference")
def config_reference() -> None:
    """Print the documentation of all settings as Markdown."""
    from mynah.config import settings_reference

    sys.stdout.write(settings_reference())


if __name__ == "__main__":
    main()
