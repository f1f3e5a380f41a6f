"""Every error Mynah raises on purpose.

Each class carries a stable ``code`` for machines, says whether trying again can help (``retryable``), and names
the localised sentence (``public``, a key of the files in ``mynah/texts``) that may be shown or spoken to a person.
The exception's own message is for operators and may name hosts and settings, never secrets.
"""

from __future__ import annotations

from typing import ClassVar


class MynahError(Exception):
    """Root of the tree."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    public: ClassVar[str] = "error_internal"


class ConfigError(MynahError):
    """A setting is unknown, of the wrong type, missing or contradictory. The message names the key and the remedy."""

    code = "config"


class PortInUseError(ConfigError):
    """A listening port is taken by another process."""

    code = "port_in_use"


class WireError(MynahError):
    """Bytes or JSON from a peer that cannot be understood. Such input is dropped, it never ends a session."""

    code = "wire"


class AudioError(MynahError):
    """An audio codec or file could not be used."""

    code = "audio"


class IllegalTransitionError(MynahError):
    """The turn machine was asked for a step its state does not allow: a bug in the caller."""

    code = "illegal_transition"


class ProviderError(MynahError):
    """An AI service failed. ``provider`` is the configured entry's name."""

    code = "provider"
    public = "error_provider"

    def __init__(self, message: str, *, provider: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.retry_after_s = retry_after_s


class ProviderTimeoutError(ProviderError):
    """The service did not answer within the configured time."""

    code = "provider_timeout"
    retryable = True
    public = "error_timeout"


class ProviderUnavailableError(ProviderError):
    """Connection refused or lost, or a 5xx answer."""

    code = "provider_unavailable"
    retryable = True


class ProviderRateLimitedError(ProviderError):
    """The service throttles us (429). ``retry_after_s`` is set when it said for how long."""

    code = "provider_rate_limited"
    retryable = True


class ProviderRejectedError(ProviderError):
    """The service refuses the request as it is: bad key, unknown model, content filter."""

    code = "provider_rejected"


class ProviderProtocolError(ProviderError):
    """The service answered something its documentation does not allow."""

    code = "provider_protocol"
    retryable = True


class ToolError(MynahError):
    """A tool could not do what was asked. The message is given to the language model, so write it for a reader."""

    code = "tool"
    public = "error_tool"


def innermost(error: BaseException) -> BaseException:
    """Return the first real error inside nested groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
