"""A user for whom there is no room: told so in a sentence that is ready, then hung up on. No other work is done."""

from __future__ import annotations

from mynah.dialogue import emotion
from mynah.dialogue.admission import TRY_AGAIN_LATER
from mynah.dialogue.reply import Reply
from mynah.dialogue.services import Link, Services
from mynah.dialogue.speak import Spoken
from mynah.dialogue.talker import Talker
from mynah.dialogue.think import Face
from mynah.dialogue.work import TurnWork
from mynah.texts import detect_language, text
from mynah.wire.messages import Stt, TtsStop

BUSY = "busy"
"""Key of the sentence; `mynah.engine` has it synthesised at the start."""
MAX_SHOWN_CHARS = 200
"""Of what the user said, on the display: a wake word or a short question. Overflow policy: the rest is cut off."""


class TurnedAway:
    """The last reply of a connection. It costs the sending of some forty packets that were encoded long ago."""

    __slots__ = ("_aloud", "_language", "_link", "_over", "_reply", "_services", "_session_id")

    def __init__(self, services: Services, link: Link, talker: Talker, said: str, work: TurnWork) -> None:
        """Begin to say it. ``said``: the wake word or text the device came with, shown as always; empty for none."""
        self._aloud = services.admission.tell()
        self._over = False
        said = said.strip()[:MAX_SHOWN_CHARS]
        self._services = services
        self._link = link
        self._session_id = talker.session_id
        self._language = detect_language(said, default=talker.kept.language)
        if said:
            link.send(Stt(said, self._session_id))
        self._reply = Reply(services.voice, link, self._session_id, self.end, 0)
        self._reply.show_face(Face(*emotion.SORRY))
        work.spawn(self._tell, instead=self.end)

    async def _tell(self) -> None:
        """Say it. It is shown only where too many are told, or the voice failed when the sentence was prepared."""
        voice, reply = self._services.voice, self._reply
        for language in (self._language, self._services.settings.language):
            words = text(BUSY, language)
            if self._aloud and voice.knows(words, language):
                await reply.speech.say(Spoken(words, remember=False), language)
                break
        else:
            reply.on_sentence(Spoken(text(BUSY, self._language), remember=False))
        reply.finish()

    def end(self) -> None:
        """It has been played, or nobody wants to hear it: hang up."""
        if not self._over:
            self.cancel()
            self._link.send(TtsStop(self._session_id))
            self._link.close(TRY_AGAIN_LATER, "busy, try again later")

    def cancel(self) -> None:
        """The connection is gone. Safe more than once."""
        if not self._over:
            self._over = True
            self._reply.cancel()
            if self._aloud:
                self._services.admission.told()
