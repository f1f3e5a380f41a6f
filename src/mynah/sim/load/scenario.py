"""What a load test does: how many devices in which steps, what they do, and when the result counts as good."""

from __future__ import annotations

import difflib
import itertools
import re
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec

from mynah.config.layers import KeyPath, Layer, dotted, read_yaml
from mynah.errors import ConfigError
from mynah.wire.messages import ListenMode
from mynah.wire.pull4g import Codec

CHANGED: Final = ", changed"
"""Ends the name of a scenario that the command line has changed."""


class Behaviour(StrEnum):
    """What devices do once they have said hello."""

    IDLE = "idle"
    """Nothing: the connection stays open."""
    TALK = "talk"
    """Turn after turn: speak in real time, hear the whole answer, wait a moment."""
    MIXED = "mixed"
    """A share of them talk, the others are idle."""
    CHURN = "churn"
    """Connect, say hello, stay a moment, hang up, come back."""


class Transport(StrEnum):
    """How devices reach the server."""

    WS = "ws"
    PULL4G = "pull4g"
    """The 4G pull protocol: devices behind a modem, which poll for their answers."""


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every step must keep; None: not asked for."""

    success: float = 0.99
    """Share of connections and turns that succeed."""
    connect_p95_ms: float | None = 1000.0
    hello_p95_ms: float | None = 1000.0
    first_audio_p95_ms: float | None = None
    """Absolute; it depends on the AI services behind the server."""
    first_audio_growth: float | None = 2.0
    """p95 of the first audio, as a multiple of that of the first step with talkers."""
    late_share: float | None = 0.01
    """Of the packets, more than 5 ms late."""
    dry_share: float | None = 0.01
    """Of the packets, after an audible gap."""
    overflow: int | None = 0
    """Packets lost in full devices."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A load test. The file format is this, as YAML."""

    name: str = "custom"
    steps: tuple[int, ...] = (100, 500)
    """Devices connected in each step, never fewer than in the step before."""
    behaviour: Behaviour = Behaviour.IDLE
    talkers_share: float = 0.1
    """Of the devices, with behaviour ``mixed``."""
    max_talkers: int | None = None
    """Never more than so many talk, with behaviour ``mixed``."""
    hold_s: float = 20.0
    """How long a step is held after its devices have connected."""
    connects_per_s: float = 200.0
    """How fast devices connect while a step ramps up; with ``churn`` also while it is held."""
    stay_s: float = 1.0
    """How long a connection lasts with ``churn``."""
    mode: ListenMode = ListenMode.AUTO
    protocol: int = 1
    """Framing version, 1 to 3."""
    transport: Transport = Transport.WS
    codec: Codec = Codec.OPUS
    """Of audio with transport ``pull4g``, both ways."""
    framed: bool = True
    """Framed or plain mode of that transport."""
    language: str = "en"
    """Of what the devices say: ``en`` or ``zh``."""
    say: tuple[str, ...] = ()
    """What they say; empty: built-in questions."""
    pause_s: tuple[float, float] = (0.5, 2.0)
    """Between an answer and the next question, at random."""
    answer_timeout_s: float = 15.0
    """A turn without an answer for so long has failed."""
    interrupt_share: float = 0.0
    """Of the answers, cut off by the user after a second."""
    stop_when_failed: bool = True
    """Do not go on to larger steps when one did not pass."""
    thresholds: Thresholds = Thresholds()


_RAMP: Final = (100, 500, 1000, 2000, 5000, 10_000, 20_000)


def _up_to(devices: int) -> tuple[int, ...]:
    return (*(step for step in _RAMP if step < devices), devices)


def replaced(made: Scenario, original: Scenario) -> dict[str, Any]:
    """Return the values of ``original`` that are others in ``made``, by key, as a report has them; not the names."""
    return {
        key: msgspec.to_builtins(getattr(original, key))
        for key in Scenario.__struct_fields__
        if key != "name" and getattr(made, key) != getattr(original, key)
    }


BUILT_IN: Final = {
    "quick": Scenario(name="quick", steps=_up_to(500), hold_s=10.0, connects_per_s=200.0),
    "standard": Scenario(name="standard", steps=_up_to(2000), hold_s=20.0, connects_per_s=300.0),
    "stress": Scenario(name="stress", steps=_up_to(10_000), hold_s=30.0, connects_per_s=500.0),
    "extreme": Scenario(name="extreme", steps=_up_to(20_000), hold_s=30.0, connects_per_s=1000.0),
}
"""Scenarios by name."""

MAX_FILE_BYTES: Final = 65_536
"""Of a scenario file; a real one has some hundred bytes. A longer one is refused."""

MAX_DEVICES: Final = 1_000_000
"""Of a step: more than that do not fit behind one address."""

_PLACE: Final = re.compile(r" - at `\$([^`]*)`$")
_TYPES: Final = {
    "array": "a list",
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "object": "a mapping",
}
_CHOICES: Final[dict[str, type[StrEnum]]] = {
    "behaviour": Behaviour,
    "mode": ListenMode,
    "transport": Transport,
    "codec": Codec,
}
_UNKNOWN: Final = re.compile(r"unknown field `([^`]*)`")


def load_scenario(name_or_path: str) -> Scenario:
    """Return a built-in scenario, or the one in a YAML file, checked. Raises ConfigError: key, place and remedy."""
    if name_or_path in BUILT_IN:
        return BUILT_IN[name_or_path]
    path = Path(name_or_path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"there is no scenario {name_or_path!r}: give one of {', '.join(BUILT_IN)}, "
            f"or a YAML file ({error.strerror or error})"
        ) from None
    except UnicodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"{path}: is longer than {MAX_FILE_BYTES} bytes, so it is no scenario")
    layer = read_yaml(text, str(path))
    try:
        scenario = msgspec.convert({"name": path.stem, **layer.values}, Scenario)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), layer, str(path))) from None
    return check(scenario, layer, str(path))


def check(scenario: Scenario, layer: Layer | None = None, name: str = "") -> Scenario:
    """Return the scenario if its values make sense. Raises ConfigError naming the first key that does not.

    ``layer`` and ``name`` are those of the file it was read from; without them the command line is meant.
    """
    for key, wrong, remedy in _rules(scenario):
        if wrong:
            where = (layer.origin((key,)) if layer is not None else "") or name
            raise ConfigError(f"{where + ': ' if where else ''}{key}: {remedy}")
    return scenario


def _rules(scenario: Scenario) -> list[tuple[str, bool, str]]:
    steps, pause = scenario.steps, scenario.pause_s
    ordered = all(earlier <= later for earlier, later in itertools.pairwise(steps))
    return [
        ("steps", not steps, "name at least one number of devices, such as [100, 500]"),
        ("steps", not all(0 < n <= MAX_DEVICES for n in steps), f"each must be 1 to {MAX_DEVICES} devices"),
        ("steps", not ordered, "write them in ascending order: devices are only added"),
        ("talkers_share", not 0 <= scenario.talkers_share <= 1, "must be a share, 0 to 1"),
        ("max_talkers", (scenario.max_talkers or 0) < 0, "must be 0 or more; leave it out for no limit"),
        ("hold_s", not 0 < scenario.hold_s <= 86_400, "must be more than 0 s, and a day (86400) at most"),
        ("connects_per_s", not 0 < scenario.connects_per_s <= 100_000, "must be above 0, up to 100000"),
        ("stay_s", not 0 <= scenario.stay_s <= 3600, "must be 0 to 3600 s"),
        ("protocol", scenario.protocol not in {1, 2, 3}, "must be 1, 2 or 3"),
        *_pull4g_rules(scenario),
        ("language", scenario.language not in {"en", "zh"}, "must be en or zh"),
        ("say", not all(text.strip() for text in scenario.say), "leave out empty texts"),
        ("say", len(scenario.say) > 100, "100 texts are enough: each is encoded six times"),
        ("pause_s", not 0 <= pause[0] <= pause[1] <= 3600, "must be two times in s, the shorter first"),
        ("answer_timeout_s", not 0 < scenario.answer_timeout_s <= 3600, "must be above 0, up to 3600 s"),
        ("interrupt_share", not 0 <= scenario.interrupt_share <= 1, "must be a share, 0 to 1"),
        ("thresholds.success", not 0 <= scenario.thresholds.success <= 1, "must be a share, 0 to 1"),
    ]


def _pull4g_rules(scenario: Scenario) -> list[tuple[str, bool, str]]:
    pulls = scenario.transport is Transport.PULL4G
    return [
        ("mode", pulls and scenario.mode is not ListenMode.MANUAL, "must be manual with transport pull4g"),
        (
            "protocol",
            pulls and scenario.protocol != 1,
            "leave it out: with transport pull4g there is no such framing",
        ),
        ("codec", pulls and scenario.codec is Codec.OPUS and not scenario.framed, "opus needs framed: true"),
    ]


def _explain(reason: str, layer: Layer, name: str) -> str:
    """Say what `msgspec.convert` did not like, where it stands, and how it should be."""
    place = _PLACE.search(reason)
    path: KeyPath = tuple(re.findall(r"\w+", place[1])) if place else ()
    reason = _PLACE.sub("", reason)
    unknown = _UNKNOWN.search(reason)
    if unknown is None:
        where = layer.origin(path) or name
        if path and path[0] in _CHOICES:
            return f"{where}: {path[0]}: must be one of {', '.join(_CHOICES[path[0]])}"
        reason = re.sub(r"`(\w+)`", lambda found: _TYPES.get(found[1], found[1]), reason)
        return f"{where}: {dotted(path)}: {reason[0].lower()}{reason[1:]}"
    path = (*path, unknown[1])
    known = (Thresholds if path[0] == "thresholds" else Scenario).__struct_fields__
    close = difflib.get_close_matches(unknown[1], known, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
    return f"{layer.origin(path) or name}: there is no {dotted(path)}; {hint}"
