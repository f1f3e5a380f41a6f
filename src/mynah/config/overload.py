"""Settings for when more people talk than the machine can serve."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from mynah.config.section import Section, setting


class Overload(Section):
    """When the server leaves things out, and when it says that it is busy."""

    enabled: bool = setting(
        "whether a server that has too much to do says so to whoever wants to begin a conversation. `false`: everybody "
        "is let in, and then everybody waits.",
        default=True,
    )
    tense_lag_ms: float = setting(
        "lateness of the event loop from which on the server leaves out what nobody misses",
        unit="ms",
        default=30.0,
        gt=0,
    )
    full_lag_ms: float = setting(
        "lateness of the event loop from which on no new conversation is taken. Devices have 180 ms of sound in hand.",
        unit="ms",
        default=100.0,
        gt=0,
    )
    tense_queue_ms: float = setting(
        "the same as `tense_lag_ms`, for audio that waits to be encoded or heard",
        unit="ms",
        default=100.0,
        gt=0,
    )
    full_queue_ms: float = setting(
        "the same as `full_lag_ms`, for audio that waits to be encoded or heard",
        unit="ms",
        default=300.0,
        gt=0,
    )
    memory_mb: int = setting(
        "memory the server may use; at 85 % of it the server leaves things out, at 95 % it takes no new devices. 0: "
        "what its container may use, else what the machine has.",
        unit="MB",
        default=0,
        ge=0,
    )
    always: int = setting(
        "conversations that are taken however late the server is: with so few it is slow for another reason",
        default=8,
        ge=0,
    )
    reserve: float = setting(
        "share of `server.limits.max_connections` that is added to it for telling devices that the server is full; "
        "beyond it they are refused with 503",
        default=0.02,
        ge=0,
        le=1,
    )

    @field_validator("full_lag_ms", "full_queue_ms")
    @classmethod
    def _above_tense(cls, value: float, info: Any) -> float:
        lower = info.field_name.replace("full", "tense")
        if lower in info.data and value <= info.data[lower]:
            raise ValueError(f"must be more than {lower} ({info.data[lower]:g})")
        return value
