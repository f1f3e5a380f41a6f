"""Settings of the conversation: when it is whose turn, what is remembered, what is said around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import field_validator

from mynah.config.section import Section, Text, setting


class Endpointing(Section):
    """When an utterance is over, in auto and realtime mode."""

    adaptive: bool = setting(
        "wait longer than the detector's `min_silence_duration_ms` for users who pause longer in mid-sentence, and for "
        "sentences that sound unfinished; never shorter, unless a turn detector is sure",
        default=True,
        effect="next session",
    )
    max_silence_ms: int = setting(
        "longest silence that is waited for, however unfinished the sentence",
        unit="ms",
        default=1500,
        ge=100,
        le=10000,
        effect="next session",
    )


class Interruption(Section):
    """What happens when a voice is heard while the assistant speaks, in realtime mode."""

    judge: bool = setting(
        "hold the reply at once, decide within a second, and go on where it stopped if it was a cough, an `uh-huh` or "
        "an echo. `false`: every voice ends the reply.",
        default=True,
        effect="next session",
    )


class EndPrompt(Section):
    """The farewell when nobody has spoken for long."""

    enable: bool = setting("say goodbye before an idle connection is closed", default=True)
    prompt: Text = setting(
        "what the language model is asked for a farewell; empty: one of the built-in phrases", default=""
    )


class Conversation(Section):
    """Turn taking, memory within a conversation, and what is said around it."""

    endpointing: Endpointing = setting("when an utterance is over", default=Endpointing())
    interruption: Interruption = setting("a voice while the assistant speaks", default=Interruption())
    speculation: Literal["auto", True, False] = setting(
        "think about what was said so far at the first pause, and use the answer if nothing is added. `auto`: as long "
        "as it pays for the chosen recogniser and model; `true`: always; `false`: never",
        default="auto",
        effect="next session",
    )
    fillers: bool = setting(
        "say a short phrase (`one moment`) when a tool or the language model usually keeps people waiting",
        default=True,
        effect="next session",
    )
    history_tokens: int = setting(
        "what the language model is shown of the conversation; the oldest exchanges are left out beyond",
        unit="tokens",
        default=4000,
        ge=100,
        le=1_000_000,
        effect="next session",
    )
    resume_s: float = setting(
        "how long a device that went away finds its conversation as it left it; 0: every connection begins anew",
        unit="s",
        default=1800.0,
        ge=0,
        effect="next session",
    )
    replacements: Mapping[str, str] = setting(
        "words that the voice should say differently, as `written: spoken`; what the display shows is not changed",
        default={},
        effect="next session",
    )
    echo_cancellation: Literal["auto", "webrtc", "gate", "off"] = setting(
        "for devices that leave it to the server (`aec` in their hello). `webrtc`: the canceller of the extra "
        "`aec`; `gate`: what is not louder than the echo can be is not taken for speech; `auto`: the best that is "
        "installed",
        default="auto",
        effect="next session",
    )

    @field_validator("echo_cancellation", mode="before")
    @classmethod
    def _not_a_truth_value(cls, value: Any) -> Any:
        """YAML reads ``off`` as false, and ``on`` as true."""
        return {False: "off", True: "auto"}.get(value, value) if isinstance(value, bool) else value

    @field_validator("replacements", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """Take numbers for their digits, and upstream's list of ``written|spoken`` as well."""
        if isinstance(value, list):
            pairs = [str(item).split("|", 1) for item in value]
            if any(len(pair) != 2 for pair in pairs):
                raise ValueError("write each as `written|spoken`, or as `written: spoken`")
            return {written.strip(): spoken.strip() for written, spoken in pairs}
        if isinstance(value, dict):
            return {str(written): str(spoken) for written, spoken in value.items()}
        return value

    @field_validator("replacements")
    @classmethod
    def _not_empty(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if any(not written.strip() for written in value):
            raise ValueError("there is nothing to replace before one of the colons")
        return value
