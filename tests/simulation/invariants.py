"""What must hold in every simulated conversation, whatever happens in it; and the conversation told in short words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from mynah.dialogue import commands, events
from mynah.dialogue.speak import START_GAP_S
from mynah.dialogue.turn import Phase
from mynah.dialogue.wording import shown
from mynah.providers.base import ChatMessage, Role
from mynah.texts import keys, variants
from mynah.wire.messages import Alert, Stt, TtsSentence, TtsStart, TtsStop
from tests.simulation.device import FRAME_S
from tests.simulation.record import Entry, Moved, Outcome
from tests.simulation.services import SENTENCE, Request

LEAD = 3
GRAIN_S = 0.006
"""The pacer may be so early; see `mynah.audio.pacer`."""
DIRECT = "Direct answer that a tool gave."
NEWS = "News"
"""How announcements in scenarios begin."""


def _phrases(*names: str) -> frozenset[str]:
    return frozenset(shown(phrase) for name in names for phrase in variants(name, "en"))


FILLERS, GREETINGS = _phrases("filler"), _phrases("greeting")
SORRY = _phrases(*(key for key in keys("en") if key.startswith("error_")))
BYE = _phrases("farewell", "farewell_idle")
AGAIN, ENOUGH = _phrases("nothing_heard"), _phrases("allowance_used_up")


class Sentence(msgspec.Struct):
    """A sentence that the device was given."""

    text: str
    at: float
    asked: list[int]
    """The requests to the voice that were made for it, or the one that a phrase from the cache was once made of."""
    calls: list[int] = []
    """The one of them that its frames come from; more than one is a fault."""
    frames: int = 0
    encoded: int = 0
    """Frames there were when the reply ended."""

    @property
    def request(self) -> int:
        """The request to the language model it comes from; 0 for other sentences."""
        match = SENTENCE.match(self.text)
        return int(match[1]) if match else 0

    @property
    def remembered(self) -> bool:
        return self.request > 0 or self.text == DIRECT or self.text in GREETINGS or self.text.startswith(NEWS)

    @property
    def kind(self) -> str:
        if self.request or self.text == DIRECT:
            return "answer"
        if self.text.startswith(NEWS):
            return "news"
        groups = {
            "sorry": SORRY,
            "bye": BYE,
            "again": AGAIN,
            "enough": ENOUGH,
            "hello": GREETINGS,
            "filler": FILLERS,
        }
        return next((name for name, group in groups.items() if self.text in group), f"?{self.text}")


class Bracket(msgspec.Struct):
    """From ``tts start`` to ``tts stop``, or to the end of the connection."""

    session: int
    at: float
    position: int
    user: str | None
    sentences: list[Sentence] = []
    frames: int = 0
    dry_at: float = 0.0
    stopped: bool = False
    over: bool = False
    """Ended by itself, not by somebody."""
    end: int = 0
    """Position of its end in the log."""

    @property
    def told(self) -> str:
        """What became of it, in short words."""
        kinds: list[str] = []
        for sentence in self.sentences:
            if not kinds or kinds[-1] != sentence.kind:
                kinds.append(sentence.kind)
        words = " ".join(kinds) or "nothing"
        if kinds and not self.frames:
            words += " unheard"
        return words if self.over else words + " cut"


class Reader:
    """Reads the log of one outcome; finds replies, and faults in them."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.faults = list(outcome.faults)
        self.brackets: list[Bracket] = []
        self.story: list[str] = []
        self._open: dict[int, Bracket] = {}
        self._last_step: dict[int, Moved] = {}
        self._stamps: dict[int, int] = {}
        self._closed: set[int] = set()
        self._pending: dict[int, str] = {}
        self._answered: dict[int, int] = {}
        self._history: list[ChatMessage] = []
        self._tools: Counter[str] = Counter()
        self._waiting: list[tuple[str, str]] = []

    def fault(self, text: str, entry: Entry | None = None) -> None:
        self.faults.append(text if entry is None else f"{entry.at - 1000:.3f}: {text}")

    def read(self) -> Reader:  # noqa: C901 - one line for each kind of entry
        for position, entry in enumerate(self.outcome.log):
            match entry.kind:
                case "step":
                    self._on_step(entry, entry.what)
                case "send":
                    self._on_send(entry, position)
                case "frame":
                    self._on_frame(entry)
                case "closed":
                    self._closed.add(entry.session)
                    self._tell_unanswered(entry)
                    if (bracket := self._open.pop(entry.session, None)) is not None:
                        self._end(bracket, entry, position)
                    self.story.append("closed")
                case "llm":
                    self._on_request(entry, entry.what)
                case "tool":
                    self._on_tool(entry)
                case "last":
                    self._tell_unanswered(entry)
                    self.story.append("last")
        self._compare("at the end", self.outcome.history)
        check_words(self)
        check_told(self)
        for record in self.outcome.records:
            if record.error == "internal":
                self.fault(f"a turn failed with an internal error: {record.text!r}")
            if record.silent and not record.interrupted and record.text:
                self.fault(f"the answer to {record.text!r} was silence")
        if len(self.outcome.records) != len(self.brackets):
            self.fault(f"{len(self.brackets)} replies, but {len(self.outcome.records)} records of turns")
        return self

    # -- one entry each

    def _on_step(self, entry: Entry, moved: Moved) -> None:
        self._last_step[entry.session] = moved
        if moved.after in (Phase.IDLE, Phase.LISTENING) and entry.session not in self._open:
            going_on = any(isinstance(command, commands.GoOn) for command in moved.commands)
            if going_on:
                self._pending.pop(entry.session, None)
            else:
                self._tell_unanswered(entry)

    def _tell_unanswered(self, entry: Entry) -> None:
        user = self._pending.pop(entry.session, None)
        if user is not None:
            self.story.append(f"{user} -> nothing")
            moved = self._last_step.get(entry.session)
            excused = entry.kind == "closed" or (
                moved is not None
                and isinstance(
                    moved.event, events.Aborted | events.TextGiven | events.ListenStarted | events.Closed
                )
            )
            if not excused:
                self.fault(f"{user!r} is not answered", entry)

    def _on_send(self, entry: Entry, position: int) -> None:  # noqa: C901 - one line for each message
        session, message = entry.session, entry.what
        if session in self._closed:
            self.fault("sent after the end of the connection", entry)
        bracket = self._open.get(session)
        match message:
            case Stt(text):
                if bracket is not None:
                    self.fault("stt within a reply", entry)
                moved = self._last_step.get(session)
                if moved is not None and moved.after is Phase.IDLE:
                    self.story.append(f"{text} -> nothing")  # a wake word, where none is greeted
                else:
                    self._pending[session] = text
            case TtsStart():
                if bracket is not None:
                    self.fault("tts start within a reply", entry)
                self._open[session] = Bracket(
                    session, entry.at, position, self._pending.pop(session, None) or None
                )
                self.brackets.append(self._open[session])
            case TtsStop():
                self._on_stop(entry, position)
            case TtsSentence(text, _, state):
                if bracket is None:
                    self.fault("a sentence outside a reply", entry)
                elif state == "sentence_start":
                    bracket.sentences.append(Sentence(text, entry.at, entry.more or []))
                elif not bracket.sentences or bracket.sentences[-1].text != text:
                    self.fault("the end of a sentence that has not begun", entry)
            case Alert() if bracket is not None:
                self.fault("an alert within a reply", entry)

    def _on_stop(self, entry: Entry, position: int) -> None:
        moved = self._last_step.get(entry.session)
        bracket = self._open.pop(entry.session, None)
        event = moved.event if moved is not None else None
        if bracket is None:
            if not isinstance(event, events.Aborted | events.TextGiven):
                self.fault("tts stop without a start", entry)
            return
        bracket.stopped = True
        bracket.over = isinstance(event, events.Played)
        self._end(bracket, entry, position)
        if bracket.over and entry.at < bracket.dry_at - GRAIN_S:
            self.fault(
                f"tts stop {bracket.dry_at - entry.at:.3f} s before the last frame has been played", entry
            )

    def _on_frame(self, entry: Entry) -> None:
        (call, index), stamp = entry.what, entry.more
        bracket = self._open.get(entry.session)
        if stamp <= self._stamps.get(entry.session, 0):
            self.fault(f"stamp {stamp} after {self._stamps[entry.session]}", entry)
        self._stamps[entry.session] = stamp
        if bracket is None:
            self.fault("a frame outside a reply", entry)
            return
        if not bracket.frames and entry.at < bracket.at + START_GAP_S - 1e-6:
            self.fault("the first frame comes too soon after tts start", entry)
        bracket.frames += 1
        bracket.dry_at = max(bracket.dry_at, entry.at) + FRAME_S
        if bracket.dry_at - entry.at > LEAD * FRAME_S + GRAIN_S:
            self.fault(f"{bracket.dry_at - entry.at:.3f} s ahead of real time", entry)
        if not bracket.sentences:
            self.fault("a frame before the first sentence", entry)
            return
        sentence = bracket.sentences[-1]
        if call not in sentence.calls:
            sentence.calls.append(call)
            text = self.outcome.tts.calls[call].text
            if call not in sentence.asked or shown(text) != sentence.text or len(sentence.calls) > 1:
                self.fault(f"a frame of {text!r} (request {call}) in {sentence.text!r}", entry)
        if index != sentence.frames:
            self.fault(f"frame {index} of {sentence.text!r} in place of {sentence.frames}", entry)
        sentence.frames += 1

    def _on_request(self, entry: Entry, request: Request) -> None:
        messages = list(request.request.messages)
        history = [m for m in messages[1:] if m.role is not Role.SYSTEM]
        while history and history[-1].role is not Role.USER:
            history.pop()  # calls of tools in this very turn
        if history:
            self._compare("in a request", history[:-1], entry)

    def _on_tool(self, entry: Entry) -> None:
        asked = entry.more
        self._tools[asked] += 1
        bracket = self._open.get(entry.session) or self._ended_now(entry)
        if bracket is None or bracket.user not in (asked, None):
            self.fault(f"a tool ran for {asked!r}, which is not being answered", entry)
        elif self._tools[asked] > 1 and bracket.user is not None:
            self.fault(f"a tool ran {self._tools[asked]} times for {asked!r}", entry)

    def _ended_now(self, entry: Entry) -> Bracket | None:
        """Return the reply that was cut short in the very moment: what had begun by then could not be stopped."""
        last = self.brackets[-1] if self.brackets else None
        return last if last is not None and self.outcome.log[last.end].at == entry.at else None

    # -- replies

    def _end(self, bracket: Bracket, entry: Entry, position: int) -> None:
        bracket.end = position
        encoded = entry.more
        for sentence in bracket.sentences:
            # What was asked for after the end is not in the list.
            sentence.encoded = sum(encoded[call] for call in sentence.asked if call < len(encoded))
        whole = bracket.sentences if bracket.over else bracket.sentences[:-1]
        for sentence in whole:
            if sentence.frames < sentence.encoded:
                self.fault(
                    f"only {sentence.frames} of {sentence.encoded} frames of {sentence.text!r} were sent",
                    entry,
                )
        for number in {s.request for s in bracket.sentences if s.request}:
            if self._answered.setdefault(number, id(bracket)) != id(bracket):
                self.fault(f"answer {number} is spoken in two replies", entry)
        for number in {s.request for s in bracket.sentences if s.request}:
            asked = next(e.what.user for e in self.outcome.log if e.kind == "llm" and e.what.number == number)
            if bracket.user is not None and asked != bracket.user:
                self.fault(f"{bracket.user!r} was answered with what was asked as {asked!r}", entry)
        if bracket.user is not None and not bracket.sentences and bracket.over:
            self.fault(f"{bracket.user!r} was answered with nothing", entry)
        self.story.append(f"{bracket.user or '-'} -> {bracket.told}")
        self._remember(bracket)

    def _remember(self, bracket: Bracket) -> None:
        """Add to the history what must be in it now. ``\\0`` stands for what may be cut off, see `_matches`."""
        said = [s for s in bracket.sentences if s.remembered]
        words = " ".join(s.text for s in said if s.frames >= s.encoded)
        if said and said[-1].frames < said[-1].encoded:
            last = said[-1]
            words += f"\0{last.text}\0{last.frames / last.encoded:.6f}"
        if bracket.user is not None:
            self._history.append(ChatMessage(Role.USER, bracket.user))
        if words:
            self._history.append(ChatMessage(Role.ASSISTANT, words))

    def _compare(self, where: str, found: list[ChatMessage], entry: Entry | None = None) -> None:
        kept = [m for m in found if m.role is not Role.TOOL and not m.tool_calls]
        expected = [m for m in self._history if _must_be_there(m)]
        found_texts = [(m.role.value, m.content) for m in kept]
        matched = 0
        for message in self._history:
            if (
                matched < len(kept)
                and kept[matched].role is message.role
                and _matches(message.content, kept[matched].content)
            ):
                matched += 1
            elif _must_be_there(message):
                self.fault(f"history {where} lacks {message.content!r}: {found_texts[-6:]}", entry)
                return
        if matched < len(kept):
            self.fault(
                f"history {where} has {found_texts[matched]} too much ({len(expected)} expected)", entry
            )


def _must_be_there(message: ChatMessage) -> bool:
    whole, _, cut = message.content.partition("\0")
    return bool(whole) or not cut


def _matches(expected: str, found: str) -> bool:
    """Compare with what may be cut: whole words, up to the share of the sound that was heard."""
    if "\0" not in expected:
        return expected == found
    whole, text, fraction = expected.split("\0")
    if found == whole:
        return True
    if not found.startswith(whole):
        return False
    rest = found[len(whole) :].lstrip()
    if not rest.endswith("…"):
        return False
    rest = rest[:-1]
    if not text.startswith(rest) or text[len(rest)].isalnum():
        return False
    limit = len(text) * float(fraction)
    longer = len(rest) + 1 + len(text[len(rest) + 1 :].split(maxsplit=1)[0])
    return len(rest) <= limit + 1 and longer >= limit - 1.5


# ---------------------------------------------------------------- words and announcements


def steps_after(outcome: Outcome, position: int, session: int) -> Iterator[tuple[int, Entry]]:
    for at in range(position + 1, len(outcome.log)):
        entry = outcome.log[at]
        if entry.session == session and entry.kind in ("step", "send", "closed"):
            yield at, entry


def check_words(reader: Reader) -> None:
    """What was said while the server listened is understood, once; unless somebody or something ended the turn."""
    outcome = reader.outcome
    # A part that could not be understood is not asked for again.
    deaf = any(act.fault for act in outcome.scenario.asr)
    for position, heard in enumerate(outcome.log):
        if heard.kind != "word" or deaf:
            continue
        for _, entry in steps_after(outcome, position, heard.session):
            if entry.kind == "closed":
                break
            if entry.kind == "send":
                if isinstance(entry.what, Stt):
                    if heard.what not in entry.what.text.split():
                        reader.fault(
                            f"{heard.what!r} was heard, but not understood: {entry.what.text!r}", heard
                        )
                    break
                continue
            moved: Moved = entry.what
            if isinstance(moved.event, events.Recognised) and moved.commands and not moved.event.text:
                reader.fault(f"{heard.what!r} was heard, but nothing was understood", heard)
                break
            ends = any(
                isinstance(c, commands.CloseEar | commands.CancelTurn | commands.Say | commands.OpenEar)
                for c in moved.commands
            )
            goes_on = any(isinstance(command, commands.GoOn) for command in moved.commands)
            if ends and not goes_on and not isinstance(moved.event, events.Recognised):
                break
    check_once(reader)


def check_once(reader: Reader) -> None:
    """Nothing is answered twice, but a word that two recordings have a part of each because of the button."""
    answered = [[w for w in b.user.split() if w[0] == "q"] for b in reader.brackets if b.user]
    replies = Counter(word for words in answered for word in set(words))
    repeated = [word for word, count in replies.items() if count > reader.outcome.divided.get(word, 1)]
    repeated += [word for words in answered for word, count in Counter(words).items() if count > 1]
    if repeated:
        reader.fault(f"{repeated} were answered twice")


def check_told(reader: Reader) -> None:
    """Who announces something learns what became of it, once, and the truth."""
    said = Counter(s.text for b in reader.brackets for s in b.sentences if s.frames or not s.encoded)
    sure = Counter(s.text for b in reader.brackets for s in b.sentences if s.frames)
    promised: Counter[str] = Counter()
    for told in reader.outcome.told:
        if len(told.answers) != 1:
            reader.fault(f"{told.words!r} was told {len(told.answers)} times what became of it")
        promised[told.words] += sum(told.answers)
    for words, count in promised.items():
        if count > said[words]:
            reader.fault(f"{words!r} was said {said[words]} times, but {count} times told to be")
    for words, count in sure.items():
        if words.startswith(NEWS) and count > promised[words]:
            reader.fault(f"{words!r} was said {count} times, but {promised[words]} times told to be")


def story(outcome: Outcome) -> list[str]:
    """Tell what became of each utterance until the last question."""
    told = Reader(outcome).read().story
    return told[: told.index("last")] if "last" in told else told


def check(outcome: Outcome) -> list[str]:
    """Return everything that was wrong."""
    return Reader(outcome).read().faults


__all__ = ["Bracket", "Reader", "check", "story"]
