"""Settings of what is told to other programs about the server: traces. (Metrics are served on the device port.)"""

from __future__ import annotations

from pydantic import field_validator

from mynah.config.section import Section, setting


class Tracing(Section):
    """Traces of single turns, for an OpenTelemetry collector."""

    endpoint: str = setting(
        "address of an OpenTelemetry collector that takes OTLP over HTTP (`http://127.0.0.1:4318`); each turn is sent "
        "there as a trace. Needs the package's extra `otel`. Empty: that of the environment variable "
        "`OTEL_EXPORTER_OTLP_ENDPOINT`; where that is not set either, nothing is traced.",
        default="",
    )
    words: bool = setting(
        "whether traces tell what people said and what they heard; else they tell how long it was",
        default=False,
    )

    @field_validator("endpoint")
    @classmethod
    def _address(cls, value: str) -> str:
        value = value.strip().rstrip("/").removesuffix("/v1/traces").rstrip("/")
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value
