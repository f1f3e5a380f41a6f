"""The client side of the OpenAI chat-completions API: options, connections, errors. Language and vision models use it.

Plain HTTP with aiohttp; replies are read in `llm/openai_stream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import AliasChoices, Field, SecretStr, field_validator

from mynah.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from mynah.providers.base import Kind, LlmChunk, ProviderOptions
from mynah.providers.llm.openai_stream import ReplyDecoder, SseDecoder, describe_error, is_quota

if TYPE_CHECKING:
    import aiohttp

_CONNECT_TIMEOUT_S = (
    5.0  # a service that cannot be reached in this time is down, as far as a speaker is concerned
)
_KEEP_ALIVE_S = 60.0  # conversations come back within a minute; a new TLS handshake costs two round trips
_MAX_ERROR_BODY = 64 << 10  # enough for any message; an HTML page of a proxy is cut off
_MAX_REPLY = 16 << 20  # bytes of one reply: an hour of talk with all of the stream's wrapping
_DRAIN_S = 0.05  # the end of the body comes with the last event or right behind it
_NO_KEY = "none"


class ChatApiOptions(ProviderOptions):
    """Options of every model behind a chat-completions API."""

    model_name: str = Field(min_length=1, description="name of the model, as the service calls it")
    base_url: str = Field(
        default="https://api.openai.com/v1",
        validation_alias=AliasChoices("base_url", "url"),
        description="address of the API, up to but without /chat/completions",
    )
    api_key: SecretStr = Field(description="key of the service; `none` for a service that needs none")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is sober, 2 is wild")
    max_tokens: int | None = Field(default=None, gt=0, description="longest reply, in tokens")
    top_p: float | None = Field(default=None, ge=0, le=1, description="nucleus sampling")
    timeout: float = Field(default=120.0, gt=0, description="longest time for a whole reply, in seconds")
    max_connections: int = Field(
        default=256, gt=0, description="replies at the same time; more wait until one is finished"
    )
    extra_headers: Mapping[str, SecretStr] = Field(
        default_factory=dict, description="further HTTP headers, such as api-key for Azure"
    )
    extra_body: Mapping[str, Any] = Field(
        default_factory=dict,
        description="further fields of the request, such as enable_thinking: false; they win over ours",
    )

    @field_validator("base_url")
    @classmethod
    def _http_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError(f"must begin with http:// or https://, found {value[:60]!r}")
        return value


class ChatApi:
    """The connections to one service. ``where`` names the configuration entry in errors: ``LLM.MyLLM``."""

    def __init__(self, kind: Kind, name: str, options: ChatApiOptions) -> None:
        self._name = name
        self._where = f"{kind}.{name}"
        self._options = options
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the pool of connections. The service is not called before the first request."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._options.max_connections, keepalive_timeout=_KEEP_ALIVE_S
                ),
                timeout=aiohttp.ClientTimeout(total=self._options.timeout, sock_connect=_CONNECT_TIMEOUT_S),
                headers=self._headers(),
                trust_env=True,  # HTTPS_PROXY and NO_PROXY, as people expect
            )

    async def stop(self) -> None:
        """Close all connections. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @contextlib.asynccontextmanager
    async def post(self, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request (JSON) and give the response, whose status is 200; leaving early ends it at the service.

        Raises ProviderError with a message that names the setting to look at.
        """
        import aiohttp

        if self._session is None:
            raise ProviderError("not started", provider=self._name)
        try:
            # A redirect would turn the POST into a GET, so it is reported instead of followed.
            async with self._session.post(self._url(), data=body, allow_redirects=False) as response:
                # Leaving early closes the connection, and with it the service stops generating.
                if response.status != 200:
                    raise await self._refusal(response)
                yield response
        except ProviderError as error:
            error.provider = self._name
            raise
        except TimeoutError as error:  # aiohttp's time-outs are of this class too
            raise ProviderTimeoutError(
                f"{self._url()}: no complete reply in time ({error or type(error).__name__})",
                provider=self._name,
            ) from error
        except aiohttp.InvalidURL as error:
            raise ProviderRejectedError(f"base_url: not an address: {error}", provider=self._name) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderUnavailableError(
                f"{self._url()}: {type(error).__name__}: {error}", provider=self._name
            ) from error

    def _url(self) -> str:
        base, mark, query = self._options.base_url.partition("?")
        base = base.rstrip("/")
        path = "" if base.endswith("/chat/completions") else "/chat/completions"
        return f"{base}{path}{mark}{query}"

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        key = self._options.api_key.get_secret_value()
        if key.lower() != _NO_KEY:
            headers["Authorization"] = f"Bearer {key}"
        return headers | {
            name: value.get_secret_value() for name, value in self._options.extra_headers.items()
        }

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProviderError:
        """Return the exception for an answer that is not 200."""
        status = response.status
        text = await _read_all(response.content, _MAX_ERROR_BODY)
        message, code = _error_of(text)
        key = self._options.api_key.get_secret_value()
        if key.lower() != _NO_KEY:
            message = message.replace(key, "***")  # some services quote it back
        said = f"{self._url()} answered {status}: {message}"
        wait = _retry_after(response.headers)
        if status == 429 and not is_quota(code):
            return ProviderRateLimitedError(said, retry_after_s=wait)
        if status in {408, 409, 425} or status >= 500:
            return ProviderUnavailableError(said, retry_after_s=wait)
        return ProviderRejectedError(f"{said} — {self._remedy(status, response.headers)}")

    def _remedy(self, status: int, headers: Mapping[str, str]) -> str:
        where = self._where
        model = self._options.model_name
        if status in {401, 403}:
            return f"check {where}.api_key"
        if status == 404:
            return (
                f"check {where}.base_url and whether the service has the model {model!r} ({where}.model_name)"
            )
        if status in {402, 429}:
            return "the account's quota is used up"
        if 300 <= status < 400:
            return f"set {where}.base_url to where it redirects: {headers.get('Location', '(not said)')}"
        return f"the service does not accept the request for model {model!r}; check {where}"


def _error_of(text: str) -> tuple[str, str]:
    """Return (message, code) of the body of a refusal, whatever its shape."""
    try:
        body = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return " ".join(text.split())[:500] or "(no message)", ""
    if isinstance(body, list) and body:
        body = body[0]  # Google's compatible endpoint wraps it in a list
    if isinstance(body, dict):
        return describe_error(body.get("error") or body)
    return describe_error(body)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that ``Retry-After`` names, as a number or as a date."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        due = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if due.tzinfo is None:  # "-0000": UTC, from somebody who does not say where he is
        due = due.replace(tzinfo=UTC)
    return max((due - datetime.now(UTC)).total_seconds(), 0.0)


# ---------------------------------------------------------------- reply


async def read_chunks(response: aiohttp.ClientResponse) -> AsyncGenerator[LlmChunk, None]:
    """Decode the body of a reply, streamed or (from services that ignore ``stream``) in one piece."""
    reply = ReplyDecoder()
    if response.content_type == "application/json":
        whole = await _read_all(response.content, _MAX_REPLY)
        for chunk in (*reply.feed(whole), *reply.finish()):
            yield chunk
        return
    events = SseDecoder()
    size = 0
    async for data in response.content.iter_any():
        size += len(data)
        if size > _MAX_REPLY:
            raise ProviderProtocolError(f"the reply is longer than {_MAX_REPLY} bytes")
        for event in events.feed(data):
            for chunk in reply.feed(event):
                yield chunk
        if reply.done:
            break
    if reply.done:
        await _drain(response.content)
    else:
        for event in events.finish():
            for chunk in reply.feed(event):
                yield chunk
    for chunk in reply.finish():
        yield chunk


async def _read_all(content: aiohttp.StreamReader, limit: int) -> str:
    """Return the body as text, cut off at ``limit`` bytes."""
    body = bytearray()
    async for data in content.iter_any():
        body += data
        if len(body) >= limit:
            break
    return body[:limit].decode("utf-8", errors="replace")


async def _drain(content: aiohttp.StreamReader) -> None:
    """Read the end of the body that follows ``[DONE]``, so that the connection can be used again."""
    import aiohttp

    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in content.iter_any():
                pass
    except (TimeoutError, aiohttp.ClientError, OSError):
        return  # a service that keeps the stream open, or cuts it: the answer is complete, the connection is not
