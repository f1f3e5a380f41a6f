"""`mynah doctor`: does this machine have what the server needs, and if not, what to do."""

from __future__ import annotations

import asyncio
import enum
import importlib
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.markup import escape

from mynah import engine, resources
from mynah.audio import opus
from mynah.config import Settings, load
from mynah.config.layers import OPTIONAL_SECTIONS
from mynah.errors import AudioError, ConfigError, MynahError
from mynah.net.address import listening_socket
from mynah.providers import registry
from mynah.providers.base import Kind, Provider

WANTED_FILES: Final = 4096
"""Open files for a few hundred devices: a socket each, and some for providers."""
WANTED_MEMORY: Final = 400 * 1024 * 1024
"""What the server and its recogniser processes take with the default providers."""


class Status(enum.StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """One line of the report. ``remedy`` is empty when all is well."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def run(config: Path | None, overrides: Sequence[str], as_json: bool) -> int:
    """Make all checks and print them; return 1 when one failed."""
    checks = list(examine(config, overrides))
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(checks), indent=2).decode() + "\n")
    else:
        _print(checks)
    return int(any(check.status is Status.FAIL for check in checks))


def examine(config: Path | None, overrides: Sequence[str]) -> Iterator[Check]:
    """Make all checks, one after the other."""
    yield _python()
    yield _libopus()
    yield _espeak()
    yield _flite()
    yield from _modules()
    yield open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield memory(available_memory())
    try:
        settings = load(config, overrides)
        engine.check(settings)
    except ConfigError as error:
        yield Check("settings", Status.FAIL, str(error), "mend the settings: mynah config validate")
        return
    yield Check("settings", Status.OK, str(settings.path or "packaged defaults"))
    yield _data_dir(settings)
    for key, port in _ports(settings):
        yield _port(settings.server.ip, port, key)
    for kind in (Kind.VAD, Kind.TURN_DETECTOR, Kind.ASR, Kind.LLM, Kind.VLLM, Kind.TTS):
        if kind not in OPTIONAL_SECTIONS or getattr(settings.selected_module, kind):
            yield _provider(settings, kind)


def _ports(settings: Settings) -> Iterator[tuple[str, int]]:
    """Yield what `mynah serve` will listen on."""
    server = settings.server
    yield "server.port", server.port
    yield "server.http_port", server.http_port
    if server.pull4g.enabled:
        yield "server.pull4g_port", server.pull4g_port


def _python() -> Check:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs from a source tree may have an older one
        return Check("python", Status.FAIL, detail, "install Python 3.11 or newer")
    return Check("python", Status.OK, detail)


def _libopus() -> Check:
    try:
        return Check(
            "libopus", Status.OK, f"{opus.library_path()} ({opus.default_library().version().decode()})"
        )
    except AudioError as error:
        return Check("libopus", Status.FAIL, str(error), "apt-get install libopus0, or pip install av")


def _espeak() -> Check:
    try:
        loader = importlib.import_module("espeakng_loader")
        library = Path(loader.get_library_path())
    except ImportError:
        return Check(
            "eSpeak NG", Status.WARN, "not installed", "pip install espeakng-loader, or select another TTS"
        )
    if not library.exists():
        return Check(
            "eSpeak NG", Status.FAIL, f"{library} is missing", "pip install --force-reinstall espeakng-loader"
        )
    return Check("eSpeak NG", Status.OK, str(library))


def _flite() -> Check:
    found = shutil.which("flite")
    if found is None:
        # Only `mynah talk --text` and the tests use it: an English voice that the recogniser understands better.
        return Check(
            "flite", Status.WARN, "not found; `mynah talk` speaks with eSpeak", "apt-get install flite"
        )
    return Check("flite", Status.OK, found)


def _modules() -> Iterator[Check]:
    for module, needed_by in (
        ("pocketsphinx", "speech recognition without a service"),
        ("picows", "devices"),
        ("uvloop", "speed"),
    ):
        try:
            importlib.import_module(module)
        except ImportError as error:
            yield Check(
                module,
                Status.FAIL,
                f"cannot be imported ({error}); needed for {needed_by}",
                f"pip install {module}",
            )
        else:
            yield Check(module, Status.OK, needed_by)


def open_files(limit: int) -> Check:
    """Judge the limit of open files; each device takes one."""
    if limit in {resource.RLIM_INFINITY, -1} or limit >= WANTED_FILES:
        return Check(
            "open files", Status.OK, f"limit {'none' if limit in {resource.RLIM_INFINITY, -1} else limit}"
        )
    return Check(
        "open files", Status.WARN, f"limit {limit}: about {max(0, limit - 100)} devices", "ulimit -n 65536"
    )


def memory(available: int | None) -> Check:
    """Judge the free memory, in bytes; None when the system does not say."""
    if available is None:
        return Check("memory", Status.OK, "not known on this system")
    detail = f"{available / 2**20:.0f} MB available"
    if available < WANTED_MEMORY:
        return Check(
            "memory", Status.WARN, detail, f"free some: the defaults take up to {WANTED_MEMORY // 2**20} MB"
        )
    return Check("memory", Status.OK, detail)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return free memory in bytes: the machine's or, in a container with a limit, what is left of that."""
    found: list[int] = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pass
    left = resources.memory_left(resources.limits(root))
    if left is not None:
        found.append(left)
    return min(found, default=None)


def _data_dir(settings: Settings) -> Check:
    folder = settings.data_dir.absolute()
    # The server makes the directory when it starts; here we only look whether it could.
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check(
            "data directory",
            Status.FAIL,
            f"{folder}: {error.strerror}",
            "make it writable, or set log.data_dir",
        )
    return Check("data directory", Status.OK, str(folder))


def _port(ip: str, port: int, key: str) -> Check:
    try:
        listening_socket(ip, port, key).close()
    except ConfigError as error:
        return Check(f"port {port}", Status.FAIL, str(error), f"stop whatever has it, or -s {key}=…")
    return Check(f"port {port}", Status.OK, f"free ({key})")


def _provider(settings: Settings, kind: Kind) -> Check:
    try:
        name, entry = settings.entry(kind)
        asyncio.run(_try_out(registry.create(kind, name, entry)))
    except MynahError as error:
        return Check(f"{kind}", Status.FAIL, str(error), "mend the entry, or select another: mynah providers")
    return Check(f"{kind}", Status.OK, f"{name} ({entry['type']})")


async def _try_out(provider: Provider[Any]) -> None:
    """Start it as the server would: a voice that does not exist is found here and not by the first device."""
    try:
        await provider.start()
    finally:
        await provider.stop()


_COLOURS: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


def _print(checks: Sequence[Check]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for check in checks:
        colour = _COLOURS[check.status]
        console.print(f"[{colour}]{check.status:<5}[/]{check.name:<15} {escape(check.detail)}")
        if check.remedy:
            console.print(f"{'':<21}→ {escape(check.remedy)}")
    seen = {check.status for check in checks}
    if Status.FAIL in seen:
        console.print("The server will not start like this.")
    elif Status.WARN in seen:
        console.print("The server runs; the warnings are worth a look.")
    else:
        console.print("All is well.")
