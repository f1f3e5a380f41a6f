"""The vision service: a device posts a picture and a question, and gets what the vision model sees.

A device's main loop stands still from the shutter to our answer, and it makes an error of every status but 200. So
whatever a person should hear is a 200, and every way through here ends well before the 30 s that devices wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web
from loguru import logger

from mynah.errors import ProviderError, ProviderTimeoutError, WireError
from mynah.net.address import VISION_PATH
from mynah.net.http import delivery_of
from mynah.providers.base import VisionRequest, VllmProvider
from mynah.security.tokens import normal_device_id
from mynah.security.vision_tokens import VisionGrant, VisionTokens
from mynah.texts import detect_language, text
from mynah.wire.multipart import MultipartDecoder, PartBegin, PartData, PartEnd, PartEvent, boundary_of

_log = logger.bind(tag="vision")

MAX_PICTURES: Final = 8
"""Looked at at once; further ones are told to come back. Each may take four times its size: as it came, as base64, as
JSON."""
MAX_UPLOADS: Final = 16
"""Pictures on their way in at once, each as large as one may be: 80 MB with the default. Further ones are told to come
back. Not the same number as `MAX_PICTURES`: on a weak link a picture is 5 s on its way."""
MAX_QUESTION_CHARS: Final = 4000
"""Nobody asks more of a picture, and it costs tokens."""
MAX_ANSWER_CHARS: Final = 4000
"""Kept of an answer (its beginning): a device holds it in its little memory, and it is read aloud."""
UPLOAD_S: Final = 15.0
"""For the whole body: a 4G modem needs 5 s for a large picture, and the model must get its share of `ANSWER_S`."""
ANSWER_S: Final = 28.0
"""From the request's headers to the answer: devices give up after 30 s."""

LINGER_S: Final = 5.0
"""For what follows an early answer: many clients listen only when they have sent everything."""

_BODY_FACTOR: Final = 4
"""Bodies up to so many times the largest picture are heard out, so that the device gets to hear why not."""
_FORM_BYTES: Final = 65536
"""For the question and everything around the parts."""
_MAGIC_BYTES: Final = 12
"""So many tell the format of a picture."""

_WELCOME = """\
Mynah is running.

This is the address that devices post pictures to (the vision address). {state}
"""


class _Answer(msgspec.Struct, frozen=True):
    success: bool
    action: str
    response: str


class _Failure(msgspec.Struct, frozen=True):
    success: bool
    message: str


class VisionService:
    """Answers questions about pictures."""

    def __init__(
        self,
        tokens: VisionTokens,
        provider: VllmProvider[Any] | None,
        *,
        max_bytes: int,
        language: str = "en",
        may_ask: Callable[[VisionGrant], bool] = lambda _grant: True,
        upload_s: float = UPLOAD_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """``provider`` should bound its waits; None: there is no vision model, and devices are told so.

        ``max_bytes`` is the size of the largest picture, ``language`` that of answers to questions that do not tell
        theirs. ``may_ask`` says whether the device of a valid token is still let in. Each request has ``upload_s`` to
        arrive and is answered within ``answer_s`` of its beginning.
        """
        self._tokens = tokens
        self._provider = provider
        self._max_bytes = max_bytes
        self._language = language
        self._may_ask = may_ask
        self._upload_s = upload_s
        self._answer_s = answer_s
        self._uploads = 0
        self._answering = 0
        self._under_way: set[VisionGrant] = set()
        self.routes: list[web.RouteDef] = [
            route
            for path in (VISION_PATH, VISION_PATH + "/")
            for route in (
                web.post(path, self._explain, expect_handler=self._expect),
                web.get(path, self._welcome),
            )
        ]
        """For `DeviceHttp`, as uploads."""

    async def _welcome(self, _request: web.Request) -> web.Response:
        state = "A vision model is configured." if self._provider else "No vision model is configured."
        return web.Response(text=_WELCOME.format(state=state))

    async def _expect(self, request: web.Request) -> web.Response | None:
        """Answer ``Expect: 100-continue``: only who may go on is told to."""
        admitted = self._admitted(request)
        if isinstance(admitted, web.Response):
            admitted.force_close()
            return admitted
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return None

    async def _explain(self, request: web.Request) -> web.Response:
        admitted = self._admitted(request)
        if isinstance(admitted, web.Response):
            return admitted
        delivery_of(request).extend(self._max_body, self._upload_s + LINGER_S)
        if admitted in self._under_way:
            _log.warning("{} sends a picture while another one is under way", admitted.device_id)
            return self._spoken("error_busy", self._language)
        self._under_way.add(admitted)
        try:
            return await self._serve(request)
        finally:
            self._under_way.remove(admitted)

    # ------------------------------------------------------------ who may

    def _admitted(self, request: web.Request) -> VisionGrant | web.Response:
        """Judge a request by its headers: return whose picture may come, or why it may not."""
        grant = self._grant(request)
        if grant is None:
            return _failed(401, "the token is missing, wrong or expired, or not this device's")
        try:
            boundary_of(request.headers.get("Content-Type", ""))
        except WireError as error:
            return _failed(400, str(error))
        if (request.content_length or 0) > self._max_body:
            return _failed(413, f"larger than {self._max_body} bytes")
        return grant

    def _grant(self, request: web.Request) -> VisionGrant | None:
        scheme, _, token = request.headers.get("Authorization", "").strip().partition(" ")
        grant = self._tokens.verify(token.strip()) if scheme.lower() == "bearer" else None
        told = request.headers.get("Device-Id")
        if grant is None or (told is not None and normal_device_id(told) != grant.device_id):
            _log.warning("a picture from {} was refused: no valid token", request.remote)
            return None
        if not self._may_ask(grant):
            _log.warning("a picture from {} was refused: {} may not come in", request.remote, grant.device_id)
            return None
        return grant

    @property
    def _max_body(self) -> int:
        return self._max_bytes * _BODY_FACTOR + _FORM_BYTES

    # ------------------------------------------------------------ the picture

    async def _serve(self, request: web.Request) -> web.Response:
        due = asyncio.get_running_loop().time() + self._answer_s
        if self._uploads >= MAX_UPLOADS:
            _log.warning("{} pictures are on their way in already: another one is sent back", self._uploads)
            return self._spoken("error_busy", self._language)
        form = _Form(self._max_bytes)
        self._uploads += 1
        try:
            failure = await self._take_in(request, form)
        finally:
            self._uploads -= 1
        language = form.language(self._language)
        if failure is not None:
            return failure
        if self._provider is None:
            return self._spoken("vision_no_model", language)
        if self._answering >= MAX_PICTURES:
            _log.warning("{} pictures are looked at already: another one is sent back", self._answering)
            return self._spoken("error_busy", language)
        self._answering += 1
        try:
            return await self._ask(self._provider, form, language, due)
        finally:
            self._answering -= 1

    async def _take_in(self, request: web.Request, form: _Form) -> web.Response | None:
        """Read a request into ``form``; return the answer when there is no picture to ask about."""
        try:
            async with asyncio.timeout(self._upload_s):
                bearable = await _receive(request, form, self._max_body)
        except TimeoutError:
            return self._spoken("vision_late", form.language(self._language))
        except (WireError, web.RequestPayloadError) as error:
            return _failed(400, f"unreadable form: {error}"[:200])
        if not bearable:
            return _failed(413, f"larger than {self._max_body} bytes")
        if form.fault or not form.media_type:
            return self._spoken(form.fault or "vision_no_picture", form.language(self._language))
        delivery_of(request).received()
        return None

    async def _ask(self, provider: VllmProvider[Any], form: _Form, language: str, due: float) -> web.Response:
        loop = asyncio.get_running_loop()
        began = loop.time()
        question = form.question() or text("vision_question", language)
        request = VisionRequest(
            image=bytes(form.image), media_type=form.media_type, question=question, language=language
        )
        try:
            async with asyncio.timeout_at(due):
                answer = await provider.describe(request)
        except TimeoutError:
            _log.warning("{}: no answer about a picture in time", provider.name)
            return self._spoken(ProviderTimeoutError.public, language)
        except ProviderError as error:
            _log.warning("{} could not answer about a picture: {}", error.provider or provider.name, error)
            return self._spoken(error.public, language)
        _log.info("a picture of {} bytes was answered in {:.1f} s", len(form.image), loop.time() - began)
        return _json(_Answer(success=True, action="RESPONSE", response=answer[:MAX_ANSWER_CHARS]))

    def _spoken(self, key: str, language: str) -> web.Response:
        return _json(_Failure(success=False, message=text(key, language)))


def _failed(status: int, reason: str) -> web.Response:
    return _json(_Failure(success=False, message=reason), status)


def _json(answer: _Answer | _Failure, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json", status=status)


# ---------------------------------------------------------------- receiving


async def _receive(request: web.Request, form: _Form, max_bytes: int) -> bool:
    """Read the body into ``form`` up to its closing boundary, or until there is no use in the rest.

    False: it is longer than ``max_bytes``. Raises WireError for what is no form.
    """
    decoder = MultipartDecoder(boundary_of(request.headers["Content-Type"]))
    size = 0
    async for data in request.content.iter_any():
        size += len(data)
        if size > max_bytes:
            return False
        for event in decoder.feed(data):
            form.take(event)
        if form.fault or decoder.done:
            return True
    raise WireError("it ends before its closing boundary")


class _Form:
    """The two parts that count, as they arrive; of repeated parts the first. Others are skipped."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._question = bytearray()
        self._part = ""
        self._complete: set[str] = set()
        self.image = bytearray()
        self.media_type = ""
        """What the picture's first bytes say; empty as long as they have not come."""
        self.fault = ""
        """Key of the text that says why this cannot be answered; empty as long as it can."""

    def take(self, event: PartEvent) -> None:
        """Take in the next piece of the form."""
        match event:
            case PartBegin(name=name):
                self._part = "" if name in self._complete else name
            case PartData(data=data):
                self._data(data)
            case PartEnd():
                if self._part == "file":
                    self._judge(final=True)
                self._complete.add(self._part)
                self._part = ""

    def question(self) -> str:
        """Return the question, without the blanks around it; bytes that are no UTF-8 are replaced."""
        return self._question.decode("utf-8", "replace").strip()

    def language(self, default: str) -> str:
        """Return the language of the question, as far as it tells."""
        return detect_language(self.question(), default)

    def _data(self, data: bytes) -> None:
        if self.fault:
            return
        if self._part == "question":
            self._question += data
            size = len(self._question)
            if size > MAX_QUESTION_CHARS * 4 or (
                size > MAX_QUESTION_CHARS and len(self.question()) > MAX_QUESTION_CHARS
            ):
                self.fault = "vision_question_too_long"
        elif self._part == "file":
            self.image += data
            if len(self.image) > self._max_bytes:
                self.fault = "vision_too_large"
                self.image = bytearray()
            else:
                self._judge(final=False)

    def _judge(self, final: bool) -> None:
        if self.media_type or self.fault or (len(self.image) < _MAGIC_BYTES and not final):
            return
        self.media_type = media_type_of(self.image)
        if not self.media_type:
            self.fault = "vision_unreadable" if self.image else "vision_no_picture"


def media_type_of(image: bytes | bytearray) -> str:
    """Return the media type that a picture's first bytes show; empty for what is none of the usual formats.

    What the sender calls it does not count: cameras call everything ``image/jpeg``.
    """
    if image.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if image.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if image.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "image/webp"
    if image.startswith(b"BM") and image[6:10] == bytes(4):
        return "image/bmp"
    return ""
