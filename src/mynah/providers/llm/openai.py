"""Any service that speaks the OpenAI chat-completions API: OpenAI, DeepSeek, Qwen, GLM, Doubao, vLLM, LM Studio …

Plain HTTP with aiohttp; the stream is read in `openai_stream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import AliasChoices, Field, SecretStr

from mynah.errors import (
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimitedError,
    ProviderRejectedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from mynah.providers.base import (
    ChatMessage,
    LlmCapabilities,
    LlmChunk,
    LlmProvider,
    LlmRequest,
    ProviderOptions,
    Role,
    ToolCall,
    ToolSpec,
)
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


class OpenAiOptions(ProviderOptions):
    """Options of an OpenAI-compatible language model."""

    model_name: str = Field(min_length=1, description="name of the model, as the service calls it")
    base_url: str = Field(
        default="https://api.openai.com/v1",
        pattern=r"^https?://",
        validation_alias=AliasChoices("base_url", "url"),
        description="address of the API, up to but without /chat/completions",
    )
    api_key: SecretStr = Field(description="key of the service; `none` for a service that needs none")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 is sober, 2 is wild")
    max_tokens: int | None = Field(default=None, gt=0, description="longest reply, in tokens")
    top_p: float | None = Field(default=None, ge=0, le=1, description="nucleus sampling")
    top_k: int | None = Field(default=None, ge=0, description="only where the service knows it (Qwen, vLLM)")
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, description="against repetition")
    timeout: float = Field(default=120.0, gt=0, description="longest time for a whole reply, in seconds")
    stream_usage: bool = Field(
        default=True, description="ask for token counts; false for a service that refuses stream_options"
    )
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


class OpenAiLlm(LlmProvider[OpenAiOptions]):
    """A language model behind the chat-completions API."""

    Options = OpenAiOptions
    summary = "any OpenAI-compatible chat-completions API, with streaming and tool calls"

    def __init__(self, name: str, options: OpenAiOptions) -> None:
        super().__init__(name, options)
        self._session: aiohttp.ClientSession | None = None

    @property
    def capabilities(self) -> LlmCapabilities:
        """Streaming, with tools."""
        return LlmCapabilities(tools=True)

    async def start(self) -> None:
        """Open the pool of connections. The service is not called before the first request."""
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self.options.max_connections, keepalive_timeout=_KEEP_ALIVE_S
                ),
                timeout=aiohttp.ClientTimeout(total=self.options.timeout, sock_connect=_CONNECT_TIMEOUT_S),
                headers=self._headers(),
                trust_env=True,  # HTTPS_PROXY and NO_PROXY, as people expect
            )

    async def stop(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def generate(self, request: LlmRequest) -> AsyncGenerator[LlmChunk, None]:
        """Stream one reply. Raises ProviderError with a message that names the setting to look at."""
        import aiohttp

        if self._session is None:
            raise ProviderError("not started", provider=self.name)
        names = ToolNames(request.tools)
        body = msgspec.json.encode(self._body(request, names))
        try:
            # A redirect would turn the POST into a GET, so it is reported instead of followed.
            async with self._session.post(self._url(), data=body, allow_redirects=False) as response:
                # Leaving early closes the connection, and with it the service stops generating.
                if response.status != 200:
                    raise await self._refusal(response)
                async with contextlib.aclosing(_read(response)) as chunks:
                    async for chunk in chunks:
                        yield names.restore(chunk)
        except ProviderError as error:
            error.provider = self.name
            raise
        except TimeoutError as error:  # aiohttp's time-outs are of this class too
            raise ProviderTimeoutError(
                f"{self._url()}: no complete reply in time ({error or type(error).__name__})",
                provider=self.name,
            ) from error
        except aiohttp.InvalidURL as error:
            raise ProviderRejectedError(f"base_url: not an address: {error}", provider=self.name) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ProviderUnavailableError(
                f"{self._url()}: {type(error).__name__}: {error}", provider=self.name
            ) from error

    # ------------------------------------------------------------ request

    def _url(self) -> str:
        base, mark, query = self.options.base_url.partition("?")
        base = base.rstrip("/")
        path = "" if base.endswith("/chat/completions") else "/chat/completions"
        return f"{base}{path}{mark}{query}"

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        key = self.options.api_key.get_secret_value()
        if key.lower() != _NO_KEY:
            headers["Authorization"] = f"Bearer {key}"
        return headers | {
            name: value.get_secret_value() for name, value in self.options.extra_headers.items()
        }

    def _body(self, request: LlmRequest, names: ToolNames) -> dict[str, Any]:
        options = self.options
        body: dict[str, Any] = {
            "model": options.model_name,
            "messages": [_message(message, names) for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True} if options.stream_usage else None,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
            "top_p": options.top_p,
            "top_k": options.top_k,
            "frequency_penalty": options.frequency_penalty,
            "tools": [_tool(tool, names) for tool in request.tools] or None,
            **options.extra_body,
        }
        return {key: value for key, value in body.items() if value is not None}

    # ------------------------------------------------------------ errors

    async def _refusal(self, response: aiohttp.ClientResponse) -> ProviderError:
        """Return the exception for an answer that is not 200."""
        status = response.status
        text = await _read_all(response.content, _MAX_ERROR_BODY)
        message, code = _error_of(text)
        key = self.options.api_key.get_secret_value()
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
        where = f"LLM.{self.name}"
        model = self.options.model_name
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
    except msgspec.DecodeError:
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
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        due = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max((due - datetime.now(UTC)).total_seconds(), 0.0)


# ---------------------------------------------------------------- messages and tools


class ToolNames:
    """Tool names as the API allows them (letters, digits, ``_``, ``-``; at most 64), and the way back."""

    _FORBIDDEN = re.compile(r"[^A-Za-z0-9_-]")
    _LONGEST = 64

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        self._original: dict[str, str] = {}
        self._allowed: dict[str, str] = {}
        for tool in tools:
            self.allow(tool.name)

    def allow(self, name: str) -> str:
        """Return the allowed form of ``name``; two names never share one."""
        if name in self._allowed:
            return self._allowed[name]
        base = self._FORBIDDEN.sub("_", name)[: self._LONGEST] or "tool"
        allowed = base
        number = 2
        while allowed in self._original:
            suffix = f"_{number}"
            allowed = base[: self._LONGEST - len(suffix)] + suffix
            number += 1
        self._original[allowed] = name
        self._allowed[name] = allowed
        return allowed

    def restore(self, chunk: LlmChunk) -> LlmChunk:
        """Return ``chunk`` with the tool's own name."""
        if isinstance(chunk, ToolCall):
            return msgspec.structs.replace(chunk, name=self._original.get(chunk.name, chunk.name))
        return chunk


def _message(message: ChatMessage, names: ToolNames) -> dict[str, Any]:
    out: dict[str, Any] = {"role": message.role.value, "content": message.content}
    if message.role is Role.TOOL:
        out["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        out["content"] = message.content or None
        out["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": names.allow(call.name), "arguments": call.arguments or "{}"},
            }
            for call in message.tool_calls
        ]
    return out


def _tool(tool: ToolSpec, names: ToolNames) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": names.allow(tool.name),
            "description": tool.description,
            "parameters": dict(tool.parameters),
        },
    }


# ---------------------------------------------------------------- reply


async def _read(response: aiohttp.ClientResponse) -> AsyncGenerator[LlmChunk, None]:
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
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in content.iter_any():
                pass
    except TimeoutError:
        return  # a service that keeps the stream open: the connection is given up
