"""The composition root: the one file that knows all parts. It builds them, connects them, and takes them down again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from loguru import logger

from mynah import observe
from mynah.audio.pacer import PacerStats
from mynah.collector import Collector
from mynah.config import Settings
from mynah.console.terminal import Terminal
from mynah.dialogue.device_state import DeviceState
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.reminders import Agenda
from mynah.dialogue.services import Services, VisionAccess
from mynah.dialogue.session import Session
from mynah.engine import Engine
from mynah.net.activation import ActivationService
from mynah.net.address import WEBSOCKET_PATH, lan_address, vision_address
from mynah.net.announce import AnnounceService
from mynah.net.descriptors import fitting
from mynah.net.devices import Devices
from mynah.net.firmware import FirmwareDownloads, FirmwareFolder
from mynah.net.http import DeviceHttp
from mynah.net.metrics import MetricsService
from mynah.net.ota import OtaService
from mynah.net.owners import device_of
from mynah.net.peer import Peer
from mynah.net.tcp_pull4g import Pull4gServer
from mynah.net.vision import VisionService
from mynah.net.websocket import WebsocketServer
from mynah.providers.base import Kind
from mynah.resources import raise_descriptor_limit
from mynah.security.binding import BindingFile, Bindings
from mynah.security.tls import server_context
from mynah.security.tokens import Authenticator, TokenIssuer, signing_secret
from mynah.security.vision_tokens import VisionGrant, VisionTokens
from mynah.watch import Watch

DRAIN_S = 10.0
"""How long running replies may go on after a stop was asked for."""
WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not bound

log = logger.bind(tag="app")

T = TypeVar("T")


class Addresses(msgspec.Struct, frozen=True):
    """Where the services listen, as URLs for programs on this machine."""

    ws: str
    ota: str
    pull4g: str = ""
    """Empty: not served."""

    def ready_line(self) -> str:
        """Return the line that tells starters the server takes traffic."""
        pull4g = f" pull4g={self.pull4g}" if self.pull4g else ""
        return f"READY ws={self.ws} ota={self.ota}{pull4g}"


class App:
    """A whole server on one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._http: DeviceHttp | None = None
        self._websocket: WebsocketServer | None = None
        self._pull4g: Pull4gServer | None = None
        self.devices: Devices | None = None
        self.bindings: Bindings | None = None
        """Devices with an owner; None when none is needed (``server.binding: open``)."""
        self._binding_file: BindingFile | None = None
        self._outbox = Outbox(self._speaker)
        self._agenda = Agenda(self._outbox.announce)
        self._observation = observe.Observation(settings)
        self._engine = Engine(settings, self._observation.observer, self._agenda.of)
        self._state: DeviceState | None = None
        self._warming: asyncio.Task[None] | None = None
        self.watch: Watch | None = None
        """How the process is doing."""
        self._collector: Collector | None = None
        self._ready = False
        self.failed = False
        """The server stopped because it could not go on."""

    async def start(self) -> Addresses:
        """Start everything and return the addresses. Raises ConfigError and ProviderError."""
        settings = self.settings
        secret = signing_secret(settings)
        issuer = TokenIssuer(secret, settings.server.auth.expire_seconds)
        tls = server_context(settings)
        self.bindings = self._load_bindings()
        is_bound = None if self.bindings is None else self.bindings.is_bound
        authenticator = Authenticator(settings, issuer, is_bound=is_bound)
        services = await self._engine.start()
        vision_tokens = VisionTokens(secret)

        def vision(peer: Peer) -> VisionAccess:
            url = vision_address(settings, peer.origin, http_port)
            return VisionAccess(url, vision_tokens.issue(peer.device_id, peer.client_id))

        def may_ask(grant: VisionGrant) -> bool:
            # A device without an owner that a fixed token has let in is connected while it sends a picture.
            here = self.devices is not None and self.devices.find(grant.device_id) is not None
            return here or not authenticator.awaits_owner(grant.device_id, grant.client_id)

        self.devices = self._make_devices(services, authenticator, vision)
        self.watch = self._make_watch(services)
        self._state = DeviceState(
            settings.data_dir / "device-state.json", self._agenda, services.profiles, services.allowance
        )
        self._state.start()
        self._websocket = WebsocketServer(
            self.devices,
            max_message_bytes=settings.server.limits.max_message_bytes,
            tls=tls,
            on_refused=self._observation.on_refused,
        )
        ws_port = await self._websocket.start(settings.server.ip, settings.server.port)
        pull4g_port = await self._start_pull4g(self.devices, tls)
        firmware = FirmwareFolder(settings.firmware_dir, expected=bool(settings.server.firmware_dir))
        await firmware.refresh()
        ota = OtaService(
            settings, ws_port, authenticator, bindings=self.bindings, firmware=firmware, pull4g_port=pull4g_port
        )  # fmt: skip
        routes = [*ActivationService(self.bindings).routes(), *FirmwareDownloads(firmware).routes()]
        routes += AnnounceService(self.devices, settings.server.announce_token.get_secret_value()).routes()
        routes += self._metrics(services, self.devices, self.watch).routes()
        pictures = VisionService(
            vision_tokens,
            self._engine.vllm,
            max_bytes=settings.server.limits.vision_bytes,
            language=services.settings.language,
            may_ask=may_ask,
        )
        self._http = DeviceHttp(settings, ota, lambda: self._ready, routes, tls, pictures.routes)
        http_port = await self._http.start(settings.server.ip, settings.server.http_port)
        self.devices.start()
        self.watch.start()
        self._warming = asyncio.create_task(self._engine.warm(services))
        self._ready = True
        return self._addresses(ws_port, http_port, pull4g_port)

    def _addresses(self, ws_port: int, http_port: int, pull4g_port: int) -> Addresses:
        server = self.settings.server
        host, secure = _local_host(server.ip), "s" if server.tls.cert else ""
        pull4g = "tls" if secure and server.pull4g.tls else "tcp"
        return Addresses(
            f"ws{secure}://{host}:{ws_port}{WEBSOCKET_PATH}",
            f"http{secure}://{host}:{http_port}/xiaozhi/ota/",
            f"{pull4g}://{host}:{pull4g_port}" if pull4g_port else "",
        )

    async def stop(self, drain_s: float = DRAIN_S) -> None:
        """Finish running replies, then close everything. Safe after a failed `start`."""
        self._ready = False
        if self._collector is not None:
            self._collector.stop()
        if self._websocket is not None:
            await self._websocket.stop()
        if self._pull4g is not None:
            await self._pull4g.stop()
        if self.watch is not None:
            self.watch.stop()
        if self.devices is not None:
            await self.devices.drain(drain_s)
            self.devices.stop()
        if self._pull4g is not None:
            self._pull4g.close()
        if self._state is not None:
            state, self._state = self._state, None
            state.stop()
            await asyncio.to_thread(state.close)
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)
        if self._http is not None:
            await self._http.stop()
        await self._engine.stop()
        await self._observation.stop()
        if self._binding_file is not None:
            await asyncio.to_thread(self._binding_file.close)

    def settle(self) -> None:
        """Take charge of the garbage collector, after `start`: for a server with a process of its own."""
        assert self._websocket is not None
        websocket, pull4g, admission = self._websocket, self._pull4g, self._engine.admission

        def accepted() -> int:
            return websocket.accepted + (pull4g.opened if pull4g is not None else 0)

        self._collector = Collector(accepted, lambda: admission.talking)
        self._collector.start()

    def _speaker(self, kept_as: str) -> Session | None:
        """Return the conversation of whom things are kept for under this name."""
        if self.devices is None:
            return None
        return self.devices.find(device_of(kept_as), kept_as)

    def summary(self) -> str:
        """Return how the conversations went, in a line."""
        tally = self._engine.tally
        return tally.summary() if tally is not None else ""

    @property
    def pacing(self) -> PacerStats:
        """How punctually audio has left so far."""
        return self._engine.pacing

    def report(self) -> str:
        """Return how much there is to do, and how the conversations went, a line each."""
        load = self.watch.describe() if self.watch is not None else ""
        return "\n".join(filter(None, (load, self.summary())))

    def _make_devices(
        self, services: Services, authenticator: Authenticator, vision: Callable[[Peer], VisionAccess]
    ) -> Devices:
        most, overload = self.settings.server.limits.max_connections, self.settings.server.overload
        reserve = int(most * overload.reserve) if overload.enabled else 0
        most = max(1, fitting(most + reserve) - reserve)
        proxies = self.settings.server.trusted_proxies
        return Devices(services, authenticator, most, vision, self._agenda, self._outbox, reserve, proxies)

    async def _start_pull4g(self, devices: Devices, tls: ssl.SSLContext | None) -> int:
        """Serve devices that fetch their answers; return the port, 0 if that is not wanted."""
        server = self.settings.server
        if not server.pull4g.enabled:
            return 0
        self._pull4g = Pull4gServer(
            devices,
            max_connections=devices.limit,
            lead_ms=server.pull4g.lead_ms,
            tls=tls if server.pull4g.tls else None,
            on_refused=self._observation.on_refused,
        )
        return await self._pull4g.start(server.ip, server.pull4g_port)

    def _make_watch(self, services: Services) -> Watch:
        engine = self._engine
        return Watch(
            engine.admission,
            encoding=engine.encoding,
            hearing=engine.ingest,
            memory_limit=self.settings.server.overload.memory_mb << 20,
            on_level=engine.adjust,
            upkeep=partial(engine.keep_ready, services),
            on_lag=self._observation.on_lag,
        )

    def _metrics(self, services: Services, devices: Devices, watch: Watch) -> MetricsService:
        write = self._observation.attach(
            services,
            self._engine.vllm,
            lambda: iter(devices),
            lambda: watch.signals,
            watch.memory_limit,
            devices.limit,
        )
        return MetricsService(write, self.settings.server.metrics_token.get_secret_value())

    def on_fatal(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when the server cannot go on: without the ingest worker nobody is heard any more."""
        ingest = self._engine.ingest
        assert ingest is not None
        assert ingest.failed is not None

        def died(failed: asyncio.Future[None]) -> None:
            if not failed.cancelled() and (error := failed.exception()) is not None:
                log.opt(exception=error).critical("the audio worker died, stopping")
                self.failed = True
                call()

        ingest.failed.add_done_callback(died)

    def _load_bindings(self) -> Bindings | None:
        if self.settings.server.binding == "open":
            return None
        self._binding_file = BindingFile(self.settings.data_dir / "devices.json")
        return Bindings(self._binding_file.read(), self._binding_file.save)


def run(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; return the exit code."""
    _fill_standard_streams()
    return uvloop.run(_serve(settings))


def _fill_standard_streams() -> None:
    """Open the standard streams that whoever started us closed: else a socket would take their numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


async def _serve(settings: Settings) -> int:
    observe.configure(settings)
    raise_descriptor_limit()
    for notice in settings.notices:
        log.info("{}", notice)
    app = App(settings)
    stop = asyncio.Event()
    hurry = asyncio.Event()

    def on_signal() -> None:
        # The second Ctrl-C means it.
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        addresses = await _unless(stop, app.start())
        if addresses is not None:
            assert app.devices is not None
            app.on_fatal(stop.set)
            app.settle()
            Terminal(app.devices, stop.set, None, app.bindings, app.report).start()
            sys.stdout.write(addresses.ready_line() + "\n")
            sys.stdout.flush()
            _say_where(settings, addresses)
            await stop.wait()
            log.info("stopping: running replies may finish for {:.0f} s (Ctrl-C again: at once)", DRAIN_S)
        await _unless(hurry, app.stop())
    finally:
        await app.stop(drain_s=0.0)
    return 1 if app.failed else 0


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what ``work`` returns, or None when the event comes first; then the work is cancelled."""
    working = asyncio.ensure_future(work)
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None


def _say_where(settings: Settings, addresses: Addresses) -> None:
    log.info(
        "LLM {} · ASR {} · TTS {}", *(settings.entry(kind)[0] for kind in (Kind.LLM, Kind.ASR, Kind.TTS))
    )
    log.info("devices: enter {} as OTA address", _for_devices(addresses.ota, settings.server.ip))
    if addresses.pull4g:
        log.info("4G devices: connect to {}", _for_devices(addresses.pull4g, settings.server.ip))
    # No certificate is made out for 127.0.0.1.
    insecure = " --insecure" if settings.server.tls.cert else ""
    log.info('try it: {} talk --ota {}{} --text "what time is it"', _command(), addresses.ota, insecure)


def _command() -> str:
    """Return how to call mynah from where the server was started."""
    if shutil.which("mynah"):
        return "mynah"
    program = Path(sys.executable).with_name("mynah")
    return os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)


def _for_devices(url: str, ip: str) -> str:
    """Return the URL as a device on the network sees it."""
    return url.replace("127.0.0.1", lan_address()) if ip in WILDCARDS else url


def _local_host(ip: str) -> str:
    if ip in WILDCARDS:
        return "127.0.0.1"
    return f"[{ip}]" if ":" in ip else ip
