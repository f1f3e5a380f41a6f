"""A stream of text into sentences that can be spoken, in Chinese, English and mixtures of both.

The first piece of a reply is cut at the first punctuation mark of any kind, because every word more delays the first
sound; after that whole sentences are kept, because voices need them for their melody.
"""

from __future__ import annotations

import re

SENTENCE_ENDS = frozenset("。！？!?；;…\n")
CLAUSE_ENDS = frozenset("，,、：:—") | SENTENCE_ENDS
CLOSERS = frozenset("\"'”’」』）)】]》")
MAX_SENTENCE = 300
"""Characters after which a text without any punctuation is cut at a space: voices choke on more."""
PIECE = 4096
"""Characters looked at together: every sentence found moves the rest, so a long text is worked off in pieces."""
MIN_FIRST_CLAUSE = 2
"""Letters or ideographs a first clause must have; "A," alone is not worth a synthesis."""

TITLES = frozenset("mr mrs ms dr prof st rev hon gen col capt lt sgt e.g i.e vs approx fig".split())  # noqa: SIM905
"""Abbreviations that something always follows."""
ABBREVIATIONS = frozenset(
    "etc no inc ltd co corp dept jr sr a.m p.m u.s u.k ave blvd "  # noqa: SIM905 - a word list reads better so
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun".split()
)
"""Abbreviations and words that may also end a sentence: then a capital follows."""

_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\ufe0f\u200d\u20e3\U000e0020-\U000e007f]+"
)
# Bounded, and no part may match what another begins with: the time they take must not grow with the square of a text.
_LINK = re.compile(r"\[([^\[\]\n]+)\]\([^)\s]{1,2000}\)")
_URL = re.compile(r"https?://(?:www\.)?([^\s/，。、]+)\S*")
_MARKDOWN = re.compile(
    r"(\*\*|__|~~|`+|^[^\S\n]{0,3}#{1,6}\s+|^[^\S\n]*[-*+]\s+|^[^\S\n]*>\s+|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w))",
    re.MULTILINE,
)
_SPACES = re.compile(r"\s+")
_LAST_WORD = re.compile(r"(?<![A-Za-z0-9])([A-Za-z][A-Za-z.]*)$")
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*\d{1,3}$")


def spoken(text: str) -> str:
    """Return what a voice should say: no emoji, no markdown, links by their names, addresses by their host."""
    text = _LINK.sub(r"\1", text)
    text = _URL.sub(r"\1", text)
    text = _MARKDOWN.sub("", text)
    text = _EMOJI.sub(" ", text)
    return _SPACES.sub(" ", text).strip()


def shown(text: str) -> str:
    """Return what a device's display should show: no emoji (their fonts lack them), one line."""
    return _SPACES.sub(" ", _EMOJI.sub(" ", text)).strip()


def is_speakable(text: str) -> bool:
    """Return whether there is anything to pronounce."""
    return any(char.isalnum() for char in text)


class SentenceSplitter:
    """Feed it text as it is generated, take sentences as they become complete."""

    __slots__ = ("_buffer", "_first", "_letters", "_scanned")

    def __init__(self) -> None:
        self._buffer = ""
        self._first = True
        self._scanned = 0
        """Characters already known to hold no end, so that a long sentence is not scanned again for each token."""
        self._letters = 0
        """Letters and digits among them."""

    def feed(self, delta: str) -> list[str]:
        """Take the next piece and return the sentences it completes."""
        sentences: list[str] = []
        for start in range(0, len(delta), PIECE):
            self._buffer += delta[start : start + PIECE]
            while (end := self._find_end()) is not None:
                sentence, self._buffer = self._buffer[:end].strip(), self._buffer[end:].lstrip()
                self._scanned = self._letters = 0
                if is_speakable(sentence):
                    self._first = False
                    sentences.append(sentence)
                elif sentences and len(sentences[-1]) + len(sentence) <= MAX_SENTENCE:
                    sentences[-1] += sentence
        return sentences

    def flush(self) -> list[str]:
        """Return what is left at the end of the reply."""
        rest, self._buffer, self._scanned, self._letters = self._buffer.strip(), "", 0, 0
        return [rest] if is_speakable(rest) else []

    def _find_end(self) -> int | None:
        """Return the index behind the first complete sentence, or None when more text is needed."""
        buffer, letters = self._buffer, self._letters
        seen = min(len(buffer), MAX_SENTENCE)
        for index in range(self._scanned, seen):
            char = buffer[index]
            if char != "." and char not in CLAUSE_ENDS:
                letters += char.isalnum()
                continue
            following = buffer[index + 1 : index + 2]
            if following in CLOSERS and following:
                # The closing quote belongs to this sentence; judge the mark once we see what comes behind it.
                following = buffer[index + 2 : index + 3]
                end = index + 2
            else:
                end = index + 1
            verdict = self._is_end(index, char, following, letters)
            if verdict is None:
                seen = index
                break
            if verdict:
                return end
        self._scanned, self._letters = seen, letters
        return self._overlong()

    def _is_end(self, index: int, char: str, following: str, letters: int) -> bool | None:
        """Judge the mark at ``index``, behind so many letters; None means that the next character decides."""
        before = self._buffer[:index]
        if char == ".":
            return self._full_stop_ends(before, following, self._buffer[index + 1 :].lstrip()[:1])
        if not following and (before.count("“") > before.count("”") or before.count('"') % 2):
            return None  # a closing quote may follow and belongs to this sentence
        if char in "!?;":
            # Inside an address or code ("a?b=c") more of it follows; the next character tells. The first clause is
            # not held up for that unless its last word looks like an address.
            if not following:
                address = any(mark in before[before.rfind(" ") + 1 :] for mark in "/.=")
                return None if address or not self._first else True
            return not (following.isascii() and (following.isalnum() or following in "!?"))
        if char in SENTENCE_ENDS:
            return True
        if not self._first or letters < MIN_FIRST_CLAUSE:
            return False
        if char in ",:" and (not following or following.isascii()):
            if before[-1:].isdigit() and not following:
                return None  # 1,000 or 10:30?
            return not following or following.isspace()
        return True

    @staticmethod
    def _full_stop_ends(before: str, following: str, next_word: str) -> bool | None:
        if not following:
            return None
        if not following.isspace() and following.isascii():
            return False  # 3.14, example.com, "..." in the middle
        if _LIST_NUMBER.search(before):
            return False
        match = _LAST_WORD.search(before)
        word = match.group(1) if match else ""
        if word.lower() in TITLES or (len(word) == 1 and word.isupper() and word != "I"):
            return False
        if word.lower() in ABBREVIATIONS:
            return None if not next_word else not (next_word.islower() or next_word.isdigit())
        return True

    def _overlong(self) -> int | None:
        if len(self._buffer) <= MAX_SENTENCE:
            return None
        for marks in ("，,、：:", " "):
            cut = max(self._buffer.rfind(mark, MAX_SENTENCE // 3, MAX_SENTENCE) for mark in marks)
            if cut > 0:
                return cut + 1
        return MAX_SENTENCE
