"""`mynah loadtest`: arguments to a scenario, a run, a report, and a summary that says what to do next."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mynah.errors import ConfigError
from mynah.sim.discovery import fetch_reply
from mynah.sim.link import ConnectError
from mynah.sim.load import compare, report, sources
from mynah.sim.load.dial import Endpoint, asked_of, identity_of, read_reply
from mynah.sim.load.director import LoadOptions, look, run, without_credentials
from mynah.sim.load.markup import replace_file
from mynah.sim.load.processes import find_server
from mynah.sim.load.progress import shown, steps_table, verdict_line
from mynah.sim.load.record import Bottleneck, Check, LoadReport, Machine
from mynah.sim.load.scenario import (
    BUILT_IN,
    CHANGED,
    Behaviour,
    Scenario,
    Transport,
    check,
    load_scenario,
    replaced,
)
from mynah.sim.pull4g.line import SCHEMES
from mynah.wire.messages import ListenMode
from mynah.wire.pull4g import Codec

EXIT_PASSED, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 130

TALK_HOLD_S: Final = 20.0
"""A built-in step that people talk in is held so long at least, unless told otherwise: turns take some 10 s, and
answers that never come are to be missed within the step, after 15 s."""

ASK_TIMEOUT_S: Final = 10.0
"""What ``--check`` gives the OTA address: the time after which a device of the test gives up."""

ADDRESS: Final = "address"
"""Name of the check that tells which address the others are about."""

_ASKING: Final = identity_of(0xFF_FFFF, 0)
"""Who asks the OTA address for ``--check``; it never connects."""

_ADVICE: Final = {
    Bottleneck.NONE: "nothing was exhausted: go on with --devices and a larger number",
    Bottleneck.SERVER_CPU: "give the server more or faster cores, or fewer devices",
    Bottleneck.SERVER_CORE: "start more server processes on this machine and share the devices among them",
    Bottleneck.MACHINE_CPU: "run the load test on another machine than the server, or give this one more cores",
    Bottleneck.GENERATOR: "raise --processes, or run the load test on a faster machine: the server can do more",
    Bottleneck.MEMORY: "give the server more memory, or fewer devices",
    Bottleneck.DESCRIPTORS: "raise the limit of open files (`ulimit -n`) for the server and for the load test",
    Bottleneck.PORTS: "raise the number of local ports: sysctl -w net.ipv4.ip_local_port_range='1024 65535'",
    Bottleneck.ADMISSION: "the server refuses more than it can do; raise its limits only if it was not busy",
    Bottleneck.SERVICES: "look at the services for speech and language: the server waits for them",
    Bottleneck.UNKNOWN: "look at the report: it shows what grew with the load",
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadtestOptions:
    """Arguments of `mynah loadtest`; None where the scenario's value stands."""

    url: str = ""
    """WebSocket or OTA address."""
    scenario: str = "quick"
    """Name of a built-in one, or a YAML file."""
    behaviour: Behaviour | None = None
    devices: int | None = None
    """Of the last step; larger steps before it are left out."""
    steps: str = ""
    """All steps instead, such as ``100,200``."""
    duration_s: float | None = None
    """How long each step is held."""
    rate: float | None = None
    """Connections per second."""
    mode: ListenMode | None = None
    protocol: int | None = None
    transport: Transport | None = None
    codec: Codec | None = None
    """With transport ``pull4g``."""
    framed: bool | None = None
    token: str = ""
    insecure: bool = False
    pid: int | None = None
    """Process of the server, on this machine."""
    processes: int = 0
    ota_once: bool = False
    report: str | None = None
    """Folder; empty: no report, None: one with the time in its name."""
    json: bool = False
    check: bool = False
    """Only look at the machine."""
    compare: tuple[Path, Path] | None = None
    """Compare two reports instead."""


def main(options: LoadtestOptions) -> int:
    """Do what is asked, and show it. Returns the exit code: 0 passed, 1 not, 130 interrupted. Raises MynahError."""
    console = Console(highlight=False, soft_wrap=True)
    if options.compare is not None:
        folder = _folder(options.report, "comparison")
        if folder is None:
            raise ConfigError("a comparison needs a folder: leave --report out, or name one")
        before, after = (report.read(path) for path in options.compare)
        console.print(f"comparison: {escape(str(compare.write(before, after, folder)))}")
        return EXIT_PASSED
    if not _is_address(options.url):
        raise ConfigError(
            "give the address of a server: ws://host:8000/xiaozhi/v1/, or an OTA address such as "
            "http://host:8003/xiaozhi/ota/; with --transport pull4g also tcp://host:10002"
        )
    scenario = scenario_of(options)
    _check_transport(options.url, scenario)
    changed = replaced(scenario, load_scenario(options.scenario))
    if options.check:
        return _look(options, scenario, console)
    folder = _folder(options.report, "loadtest")
    if folder is not None:
        _try_to_write(folder)
    with shown(Console(stderr=True, highlight=False, soft_wrap=True, quiet=options.json)) as on_progress:
        made = run(options.url, scenario, _load_options(options), on_progress)
    made = msgspec.structs.replace(made, changed=changed)
    # What was measured is told first: whatever keeps the report from being written then, it is not lost.
    if options.json:
        sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
        sys.stdout.flush()
    else:
        summarise(made, console)
    if folder is not None:
        page = report.write(made, folder)
        if not options.json:
            console.print(f"report: {escape(str(page))}")
    if made.interrupted:
        return EXIT_INTERRUPTED
    return EXIT_PASSED if made.passed else EXIT_FAILED


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # half an IPv6 address
        return False
    return parts.scheme in {"ws", "wss", "http", "https", *SCHEMES} and bool(parts.hostname)


def _check_transport(url: str, scenario: Scenario) -> None:
    """Raise ConfigError when the address is one of another transport than the scenario's."""
    scheme, pulls = urlsplit(url).scheme, scenario.transport is Transport.PULL4G
    if scheme in SCHEMES and not pulls:
        raise ConfigError(f"{url} is an address of the 4G pull protocol: add --transport pull4g")
    if scheme in {"ws", "wss"} and pulls:
        raise ConfigError(
            f"{url} is a WebSocket: with transport pull4g give tcp://host:10002 or an OTA address"
        )


def scenario_of(options: LoadtestOptions) -> Scenario:
    """Return the scenario with what the command line says otherwise, which its name then tells. Raises ConfigError."""
    scenario = load_scenario(options.scenario)
    changed = {
        "behaviour": options.behaviour,
        "hold_s": options.duration_s,
        "connects_per_s": options.rate,
        "mode": options.mode,
        "protocol": options.protocol,
        "transport": options.transport,
        "framed": options.framed,
        "codec": options.codec,
        "steps": _steps(options, scenario),
    }
    wanted = {name: value for name, value in changed.items() if value is not None}
    talks = options.behaviour in {Behaviour.TALK, Behaviour.MIXED}
    if talks and options.duration_s is None and options.scenario in BUILT_IN:  # a file means what it says
        wanted["hold_s"] = max(scenario.hold_s, TALK_HOLD_S)
    made = check(msgspec.structs.replace(scenario, **wanted, **_transport_defaults(options)))
    if made.transport is Transport.WS and (options.codec is not None or options.framed is not None):
        raise ConfigError("--codec, --framed and --plain need --transport pull4g")
    if replaced(made, scenario):
        name = (scenario.name or Scenario().name).removesuffix(CHANGED) + CHANGED
        made = msgspec.structs.replace(made, name=name)
    return made


def _transport_defaults(options: LoadtestOptions) -> dict[str, ListenMode | Codec]:
    """Return what follows from an option about the transport for those that were not given."""
    if options.transport is not Transport.PULL4G:
        return {}
    found: dict[str, ListenMode | Codec] = {}
    if options.mode is None:
        found["mode"] = ListenMode.MANUAL
    if options.codec is None and options.framed is False:
        found["codec"] = Codec.PCM
    return found


def _steps(options: LoadtestOptions, scenario: Scenario) -> tuple[int, ...] | None:
    steps = scenario.steps
    if options.steps:
        try:
            steps = tuple(int(part) for part in options.steps.split(","))
        except ValueError:
            raise ConfigError(
                f"--steps {options.steps}: write numbers of devices, such as 100,200,400"
            ) from None
    if options.devices is not None:
        steps = (*(step for step in steps if step < options.devices), options.devices)
    return steps


def _load_options(options: LoadtestOptions) -> LoadOptions:
    return LoadOptions(
        token=options.token,
        insecure=options.insecure,
        server_pid=options.pid,
        processes=options.processes,
        ota_once=options.ota_once,
        command=_command(options),
    )


def _command(options: LoadtestOptions) -> str:
    """Return what was typed, for a shell, without the token and what is hidden in the address."""
    words = ["mynah", *sys.argv[1:]]
    parts = urlsplit(options.url)
    user, at, host = parts.netloc.rpartition("@")
    shown_url = parts._replace(
        netloc=("…" if user else "") + at + host,
        query="…" if parts.query else "",
        fragment="…" if parts.fragment else "",
    ).geturl()
    for secret, instead in ((options.url, shown_url), (options.token, "…")):
        words = [word.replace(secret, instead) for word in words] if secret else words
    return shlex.join(words)


def _folder(wanted: str | None, name: str) -> Path | None:
    """Return where to write; None: nowhere."""
    if wanted is None:
        return Path(f"{name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}")
    return Path(wanted) if wanted else None


def _try_to_write(folder: Path) -> None:
    """Say before the test and not after it that the report cannot be written. Raises ConfigError.

    A folder that is made for this is taken away again: a test that cannot begin leaves nothing behind.
    """
    try:
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
    except OSError:
        missing = []  # it may not even be looked at
    attempt = folder / f".{report.JSON}.attempt"
    try:
        replace_file(attempt, b"")
    finally:
        with contextlib.suppress(OSError):
            attempt.unlink(missing_ok=True)
            for one in missing:
                one.rmdir()


# ---------------------------------------------------------------- for people


def _look(options: LoadtestOptions, scenario: Scenario, console: Console) -> int:
    """Say whether the machine is up to it. Returns 1 when it is not."""
    target, told = _named_by_ota(options, scenario)
    wanted = msgspec.structs.replace(_load_options(options), server_pid=_server(options, target))
    found = look(target, scenario, wanted)
    found = msgspec.structs.replace(found, checks=[*told, *found.checks])
    if options.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    else:
        console.print(checks_table(found))
    return EXIT_FAILED if any(one.fatal and not one.ok for one in found.checks) else EXIT_PASSED


def _named_by_ota(options: LoadtestOptions, scenario: Scenario) -> tuple[str, list[Check]]:
    """Return the address that devices are sent to, which the checks are to be about, and a line that says which.

    That is the server's WebSocket address; the OTA address itself where it does not tell one.
    """
    if urlsplit(options.url).scheme not in {"http", "https"}:
        return options.url, []
    ota = without_credentials(options.url)
    try:
        reply = asyncio.run(
            fetch_reply(
                options.url,
                _ASKING,
                timeout_s=ASK_TIMEOUT_S,
                verify_tls=not options.insecure,
                transport=asked_of(scenario),
            )
        )
        found: Endpoint | str = read_reply(reply, scenario.transport)
    except ConnectError as error:
        found = str(error).replace(options.url, ota)
    told = Check(name=ADDRESS, ok=True, found="", wanted="the WebSocket address that devices are sent to")
    if isinstance(found, Endpoint):
        named = f"{without_credentials(found.url)}, as {ota} says"
        return found.url, [msgspec.structs.replace(told, found=named)]
    told = msgspec.structs.replace(
        told,
        ok=False,
        found=f"only {ota}, so the checks are about the way there: {found}",
        remedy="start the server before the check, or give its WebSocket address",
    )
    return options.url, [told]


def _server(options: LoadtestOptions, target: str) -> int | None:
    """Return the server's process, where it can be seen; behind a proxy of this machine it is who answers OTA."""
    if options.pid is not None:
        return options.pid
    found = find_server(target)
    if found is None and target != options.url and sources.is_on_this_machine(target):
        found = find_server(options.url)
    return found


def checks_table(found: Machine) -> Table:
    """Return what was looked at as a table."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in found.checks:
        mark = "[green]ok[/]" if one.ok else "[red]too little[/]" if one.fatal else "[yellow]better not[/]"
        remedy = f"\n{escape(one.remedy)}" if one.remedy and not one.ok else ""
        table.add_row(mark, escape(one.name), f"{escape(one.found)} (wanted: {escape(one.wanted)}){remedy}")
    return table


def summarise(made: LoadReport, console: Console) -> None:
    """Print what came of a test, for people."""
    console.print(steps_table(tuple(made.steps)))
    for step in made.steps:
        if not step.passed:
            console.print(escape(verdict_line(step)))
    for warning in made.warnings[:5]:
        console.print(f"[yellow]warning[/] at {warning.at_s:.0f} s: {escape(warning.text)}")
    if made.knee is not None:
        talking = f" ({made.knee.talkers} talking)" if made.knee.talkers else ""
        console.print(f"knee: good up to {made.knee.devices} devices{talking}; then {escape(made.knee.sign)}")
    console.print(
        f"bottleneck: {made.bottleneck.value}" + (f": {escape(made.evidence)}" if made.evidence else "")
    )
    console.print("passed" if made.passed else f"[red]not passed[/]: {escape('; '.join(made.reasons[:3]))}")
    console.print(f"next: {_ADVICE[made.bottleneck]}")
