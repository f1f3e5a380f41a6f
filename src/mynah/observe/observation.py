"""All that watches one server: the log, and what is switched on of metrics and traces."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mynah.config import Settings
from mynah.dialogue.admission import Signals
from mynah.dialogue.record import SessionObserver
from mynah.dialogue.services import Services
from mynah.dialogue.session import Session
from mynah.observe.logs import TurnLog
from mynah.observe.traces import TraceStats, TurnTraces, connect, wanted
from mynah.observe.turns import Observers
from mynah.providers.base import Provider
from mynah.providers.wrap import watch_calls

if TYPE_CHECKING:
    from mynah.observe.metrics import Metrics


class Observation:
    """What ``app`` attaches to a server. What is switched off is not there at all, and costs nothing."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] | None = None) -> None:
        """``environ``: the process's, unless given. Raises ConfigError when traces are wanted and cannot be made."""
        environ = os.environ if environ is None else environ
        self._settings = settings
        observers: list[SessionObserver] = [TurnLog()]
        self._metrics: Metrics | None = None
        if settings.server.metrics:
            from mynah.observe.metrics import Metrics

            self._metrics = Metrics(lambda: asyncio.get_running_loop().time())
            observers.append(self._metrics)
        self._traces: TurnTraces | None = connect(settings, environ) if wanted(settings, environ) else None
        if self._traces is not None:
            observers.append(self._traces)
        self.observer: SessionObserver = observers[0] if len(observers) == 1 else Observers(observers)
        """For the engine."""

    @property
    def on_refused(self) -> Callable[[str], None] | None:
        """Who wants to know of connections that are not let in, and why; None: nobody does."""
        return self._metrics.on_refused if self._metrics is not None else None

    @property
    def on_lag(self) -> Callable[[float], None] | None:
        """Who wants to know how late the event loop was, in s; None: nobody does."""
        return self._metrics.on_lag if self._metrics is not None else None

    def attach(
        self,
        services: Services,
        vision: Provider[Any] | None,
        sessions: Callable[[], Iterator[Session]],
        signals: Callable[[], Signals],
        memory_limit: int,
        max_connections: int,
    ) -> Callable[[], Awaitable[bytes]] | None:
        """Begin to watch; before there are sessions. Returns what writes the metrics; None: they are switched off.

        ``signals`` returns the last look at the server, ``memory_limit`` is in bytes (0: unknown),
        ``max_connections`` how many devices there is room for.
        """
        if self._traces is not None:
            self._traces.start()
        metrics = self._metrics
        if metrics is None:
            return None
        from mynah.observe.readings import Exposition, Sources

        watch_calls((services.asr, services.llm, services.voice.tts, vision), metrics.on_call)
        services.toolbox.watch = metrics.on_tool
        sources = Sources(
            sessions=sessions,
            max_connections=max_connections,
            pacer=services.voice.pacer.stats,
            ingest=services.ingest.totals,
            speculation=services.speculation.stats,
            traces=self._traces.stats if self._traces is not None else TraceStats(),
            admission=services.admission,
            signals=signals,
            memory_limit=memory_limit,
        )
        return Exposition(metrics.registry, sources).write

    async def stop(self) -> None:
        """Send the last traces. Safe more than once."""
        if self._traces is not None:
            await self._traces.stop()
