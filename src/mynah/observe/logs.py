"""Logging: console and file in the documented format, secrets blotted out; and one line per turn.

How to log in this code base::

    from loguru import logger
    log = logger.bind(tag="websocket")       # the part of the server, shown in each line
    log.info("{} connected", device_id)      # arguments, not f-strings: nothing is formatted below the level

Who wants to say something to an operator uses that, except ``wire`` and ``dialogue/turn.py``, which are pure. INFO is
for what an operator should see on a normal day, DEBUG may be one line per message, never per audio packet. What
people say is logged at DEBUG only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import string
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from loguru import logger

from mynah import __version__
from mynah.config import Settings, secret_values
from mynah.dialogue.record import TurnRecord
from mynah.errors import ConfigError

if TYPE_CHECKING:
    from loguru import Record

_log = logger.bind(tag="session")

_MASK: Final = "***"
_RECORD_FIELDS: Final = frozenset(
    [
        "elapsed",
        "exception",
        "extra",
        "file",
        "function",
        "level",
        "line",
        "message",
        "module",
        "name",
        "process",
        "thread",
        "time",
    ]
)
"""What a format may name, beside ``version`` and ``selected_module``."""

_REDACTIONS: Final = (
    # Authorization: Bearer x  ·  "authorization": "x"
    (
        re.compile(r"(?i)(\bauthorization[\"']?\s*[:=]\s*[\"']?(?:bearer\s+|basic\s+)?)[^\s\"',;&}]+"),
        rf"\1{_MASK}",
    ),
    (re.compile(r"(?i)(\bbearer\s+)(?!token\b)[^\s\"',;&}]+"), rf"\1{_MASK}"),
    # token=x  ·  "api_key": "x"  ·  elf_sha256: x (py-xiaozhi puts its private key there)
    (
        re.compile(
            r"(?i)((?:\b|_)(?:token|api[_-]?key|access[_-]?key|secret(?:[_-]?key)?|password|hmac|elf_sha256)"
            r"[\"']?\s*[:=]\s*[\"']?)[^\s\"',;&}]+"
        ),
        rf"\1{_MASK}",
    ),
    # keys that are recognisable by themselves
    (re.compile(r"\bsk-[A-Za-z0-9_-]{12,}"), f"sk-{_MASK}"),
)

LINES_AT_ONCE: Final = 100
LINES_PER_S: Final = 20
"""So many connections are logged one by one, and so many more every second. Overflow policy: the rest is counted, and
logged one by one at DEBUG only."""
SUMMARY_S: Final = 1.0
"""How long they are counted before a line tells how many they were."""

_SELECTED: Final = ("VAD", "ASR", "LLM", "TTS", "Memory", "Intent")


def redactor(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that blots out these secrets, and whatever looks like one, in a text."""
    known = sorted(secrets, key=len, reverse=True)
    exact = re.compile("|".join(map(re.escape, known))) if known else None

    def redact(text: str) -> str:
        if exact is not None:
            text = exact.sub(_MASK, text)
        for pattern, replacement in _REDACTIONS:
            text = pattern.sub(replacement, text)
        return text

    return redact


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send all logging, that of libraries included, to ``stream`` (standard error) and the log file.

    Colours are used on a terminal only. Raises ConfigError when a format cannot be used; a log file that cannot be
    written is said once, and the server goes on without it.
    """
    log = settings.log
    stream = sys.stderr if stream is None else stream
    levels: dict[str | None, str | int | bool] = {"": log.log_level}
    levels.update(log.levels.items())
    lowest = min((str(level) for level in levels.values()), key=lambda name: logger.level(name).no)
    logger.remove()
    logger.configure(patcher=_patcher(redactor(secret_values(settings))))
    colour = stream.isatty() and "NO_COLOR" not in os.environ
    _add("log.log_format", stream, log.log_format, settings, levels, lowest, colorize=colour)
    if log.log_file:
        path = Path(log.log_dir) / log.log_file
        options = {
            "rotation": log.rotation,
            "retention": log.retention,
            "encoding": "utf-8",
            "colorize": False,
        }
        try:
            _add("log.log_format_file", path, log.log_format_file, settings, levels, lowest, **options)
        except OSError as error:
            logger.bind(tag="log").warning(
                "no log file {}: {} (log.log_dir, log.log_file)", path, error.strerror
            )
    _intercept_standard_logging(log.levels)


def _add(
    key: str,
    sink: Any,
    line_format: str,
    settings: Settings,
    levels: dict[str | None, str | int | bool],
    lowest: str,
    **options: Any,
) -> None:
    line_format = line_format.replace("{version}", _literal(__version__))
    line_format = line_format.replace("{selected_module}", _literal(selected_module_code(settings)))
    try:
        fields = {
            str(name).split("[")[0].split(".")[0]
            for _, name, _, _ in string.Formatter().parse(line_format)
            if name
        }
        unknown = fields - _RECORD_FIELDS
        if unknown:
            raise ConfigError(f"{key}: there is no {{{min(unknown)}}} in log lines")
        # No variables in tracebacks (they hold keys and what people said), and no enqueueing: a line costs less
        # than the hop to another thread.
        logger.add(
            sink,
            format=line_format,
            filter=levels,
            level=lowest,
            backtrace=False,
            diagnose=False,
            **options,
        )
    except ValueError as error:
        raise ConfigError(f"{key} or log.rotation: {error}") from None


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}").replace("<", r"\<")


def selected_module_code(settings: Settings) -> str:
    """Return two letters of each selected module (VAD, ASR, LLM, TTS, Memory, Intent), as the log format shows."""
    return "".join(getattr(settings.selected_module, kind)[:2] for kind in _SELECTED)


def _patcher(redact: Callable[[str], str]) -> Callable[[Record], None]:
    def patch(record: Record) -> None:
        record["extra"].setdefault("tag", (record["name"] or "").removeprefix("mynah."))
        message = record["message"]
        caught = record["exception"]
        if caught is not None and caught.type is not None:
            # Tracebacks quote messages of libraries, which quote requests: they are blotted like the rest.
            lines = traceback.format_exception(caught.type, caught.value, caught.traceback)
            message = f"{message}\n{''.join(lines).rstrip()}"
            record["exception"] = None
        record["message"] = redact(message)

    return patch


class _Intercept(logging.Handler):
    """Passes records of the standard library's logging on."""

    def emit(self, record: logging.LogRecord) -> None:
        def relabel(target: Record) -> None:
            target["name"] = record.name
            target["function"] = record.funcName or ""
            target["line"] = record.lineno

        known = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
        level: str | int = record.levelname if record.levelname in known else record.levelno
        bound = logger.patch(relabel).bind(tag=record.name).opt(exception=record.exc_info)
        bound.log(level, "{}", record.getMessage())


def _intercept_standard_logging(levels: Iterable[str]) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Intercept):
            root.removeHandler(handler)
    root.addHandler(_Intercept())
    root.setLevel(logging.WARNING)  # libraries' own chatter is wanted only where a level asks for it
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)  # the level itself is applied by the sinks
    logging.captureWarnings(True)


# ---------------------------------------------------------------- turns


class _Crowd:
    """Lines about connections: one each while few come and go, one a second for all when a site comes back at once.

    A line costs 45 µs of the event loop and 100 bytes of the log file; a thousand a second would fill it in minutes.
    """

    def __init__(self) -> None:
        self._left = float(LINES_AT_ONCE)
        self._left_at = time.monotonic()
        self._untold: dict[str, int] = {}

    def tell(self, device_id: str, doing: str, session_id: str) -> None:
        """Log that a device has ``connected`` or ``disconnected``, or count it."""
        now = time.monotonic()
        self._left = min(LINES_AT_ONCE, self._left + (now - self._left_at) * LINES_PER_S)
        self._left_at = now
        if self._left >= 1:
            self._left -= 1
            _log.info("{} {}, session {}", device_id, doing, session_id)
            return
        _log.debug("{} {}, session {}", device_id, doing, session_id)
        if not self._untold:
            asyncio.get_running_loop().call_later(SUMMARY_S, self._sum_up)
        self._untold[doing] = self._untold.get(doing, 0) + 1

    def _sum_up(self) -> None:
        told = ", ".join(f"{count} more {doing}" for doing, count in sorted(self._untold.items()))
        self._untold = {}
        _log.info("{}; each one is logged at DEBUG", told)


class TurnLog:
    """Implements `mynah.dialogue.record.SessionObserver`: one line per turn.

    Times are counted from the end of the user's speech. The words themselves are logged at DEBUG only.
    """

    def __init__(self) -> None:
        self._crowd = _Crowd()

    def on_session_opened(self, device_id: str, session_id: str) -> None:
        """A conversation begins."""
        self._crowd.tell(device_id, "connected", session_id)

    def on_turn(self, record: TurnRecord) -> None:
        """A reply has ended, played or interrupted."""
        _log.debug("{} said {!r}, heard {!r}", record.device_id, record.text, record.answer)
        outcome = (
            f"failed: {record.error}" if record.error else "interrupted" if record.interrupted else "done"
        )
        _log.log(
            "WARNING" if record.error else "INFO",
            "{} turn ({}) {}: {} characters in, {} out{}{}{}",
            record.device_id,
            record.mode or "unprompted",
            outcome,
            len(record.text),
            len(record.answer),
            _remarks(record),
            (f", {record.tts_failures} sentences without voice" if record.tts_failures else "")
            + (f", {record.wake_ms} ms of wake word" if record.wake_ms else ""),
            "".join(f", {stage.replace('_', ' ')} {ms:.0f} ms" for stage, ms in record.stages_ms().items()),
        )

    def on_session_closed(self, device_id: str, session_id: str) -> None:
        """The conversation is over."""
        self._crowd.tell(device_id, "disconnected", session_id)


def _remarks(record: TurnRecord) -> str:
    """Return what was out of the ordinary, for the end of a line."""
    remarks = [
        f"answer guessed ({record.guess})" if record.guess else "",
        f"{record.parts} parts" if record.parts > 1 else "",
        "begun too early" if record.cut_in else "",
        f"{record.false_alarms} false alarms" if record.false_alarms else "",
        "silent" if record.silent else "",
    ]
    return "".join(f", {remark}" for remark in remarks if remark)
