"""A stream of text into sentences that can be spoken, in Chinese, English and mixtures of both.

The first piece of a reply is cut at the first punctuation mark of any kind, because every word more delays the first
sound; after that whole sentences are kept, because voices need them for their melody.

Where a text is cut depends on the text alone, not on the pieces it arrives in: a mark is judged by what stands before
it, and where that does not suffice it waits for what follows. Only two things depend on what has arrived already:
whether very short sentences share a breath, and whether further marks ("!!") are kept or dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

from mynah.dialogue.wording import CJK, is_speakable, shown, spoken

__all__ = ["MAX_SENTENCE", "PIECE", "SentenceSplitter", "is_speakable", "shown", "spoken"]

MAX_SENTENCE = 300
"""Characters after which a text without any punctuation is cut at a space: voices choke on more."""
PIECE = 4096
"""Characters looked at together: every sentence found moves the rest, so a long text is worked off in pieces."""
MIN_FIRST_CLAUSE = 2
"""Letters or ideographs a first clause must have; "A," alone is not worth a synthesis."""
SHORT_BREATH = 5
"""Letters, an ideograph counts as two, up to which a sentence alone sounds clipped: "OK.", "好的。"."""
LINK_CHARS = 100
"""How far behind a ``[`` its ``]`` may be for the two to be a link; a lone bracket must not hold up the reply."""

_MARK = re.compile("[.!?;…。！？；।؟۔\n，,、：:—]")
_CLAUSE_MARKS = frozenset("，,、：:—")
_FOLLOWERS = ".!?;…。！？；।؟۔，,、：:—”’」』）)】]》}"
"""What may directly follow a mark and belongs to it whatever stands before: more marks, and what can only close."""
_FOLLOWING = re.compile(f"[{re.escape(_FOLLOWERS)}]*")
_QUOTES = re.compile('[“”「」『』（）()《》【】"]')
_BRACKETS = re.compile("[“”「」『』（）()《》【】]")
_CLOSING = frozenset("\"'”’」』）)】]》}*_")
_CLOSED_BY = {"“": "”", "「": "」", "『": "』", "（": "）", "(": ")", "《": "》", "【": "】"}
_MAX_DEPTH = 8
"""Quotes and brackets within each other that are remembered. Overflow policy: the outermost are forgotten, which costs
no more than that a closing mark is not waited for."""

_INSIDES = re.compile(r"[`|\[]")
_ALNUM = re.compile(r"[^\W_]")
_LIST_NUMBER = re.compile(r"[\s*_#>-]{0,8}(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})\Z")
_ADDRESS = re.compile(r"[/.=@\\_]|(?<![A-Za-z])(?:https?|ftp|mailto|tel)\Z")
_ENTITY = re.compile(r"&#?\w+\Z")
_SINGLE_QUOTE = re.compile(r"(?:\A|[\s(])['‘]")
_HOUR = re.compile(r"\d ?[AaPp]\.?[Mm]\Z")
_LAST_WORD = re.compile(r"(?<![A-Za-z0-9])[A-Za-z](?:\.?[A-Za-z])*\Z")
_LAST_WORD_CHARS = 24
"""No abbreviation is longer, so no more is looked at."""
_CAPITAL_WORD = re.compile(r"(?:\A|\s)[A-Z][\w.'’-]* \Z")
_GAP = re.compile(r"\s*[\"'“‘(\[*_「]*")
_NEXT_WORD = re.compile(r"[A-Za-z]+")
_ACRONYM = re.compile(r"[A-Z]|(?:[A-Za-z]\.)+[A-Za-z]")
_WIDE = re.compile(f"[{CJK}\u3000-\u303f\uff00-\uff65]")

_ALWAYS_CONTINUED = frozenset("mr mrs ms dr e.g i.e vs approx cf viz".split())  # noqa: SIM905 - word lists read better so
"""Abbreviations that something always follows."""
_TITLES = frozenset("Prof Rev Hon Gen Col Capt Cpt Lt Sgt Cmdr Adm Gov Sen Rep Pres".split())  # noqa: SIM905
"""The same, with a capital only: these are words otherwise, or ends of them."""
_NUMBERED = frozenset("no nos fig figs vol ch sec p pp par art eq ver v ext tel".split())  # noqa: SIM905
"""Abbreviations if a number follows; otherwise words ("He said no.") that end a sentence."""
_ZONES_AND_DAYS = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday eastern central pacific "  # noqa: SIM905
    "est edt cst cdt mst mdt pst pdt gmt utc cet cest bst ist jst".split()
)
"""Words with a capital that continue after "5 p.m."."""
_NAMES = frozenset(
    "inc ltd co corp dept bros jr sr st mt ft ave blvd rd sq ph.d al est ed univ "  # noqa: SIM905
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun".split()
)
"""Abbreviations that may end a sentence but are often followed by a name. Months and days need a capital."""
_CAPITAL_NAMES = _NAMES - {"inc", "ltd", "ph.d", "al", "dept", "blvd"}
_STARTERS = frozenset(
    "a an the this that these those it its i we you he she they there here my your his her our their "  # noqa: SIM905
    "what when where why who which how if in on at by for from with as after before because while since once until "
    "unless and but or so then also however still yet yes no not maybe perhaps let now today tomorrow yesterday "
    "is are was were do does did can could would should may might please thanks ok okay everyone everything nobody "
    "nothing all some many most both each every another one two first next finally".split()
)
"""First words of sentences, as opposed to names."""


class _Verdict(Enum):
    """About a mark that is no end as yet."""

    NO = 0
    WAIT = 1
    """What follows decides, and has not arrived."""


class SentenceSplitter:
    """Feed it text as it is generated, take sentences as they become complete. One for each reply."""

    __slots__ = ("_behind_mark", "_buffer", "_first", "_open", "_scanned")

    def __init__(self) -> None:
        self._buffer = ""
        """At most `PIECE` characters more than the `MAX_SENTENCE` behind which it is cut whatever it holds."""
        self._first = True
        self._scanned = 0
        """Characters already known to hold no end, so that a long sentence is not scanned again for each token."""
        self._behind_mark = False
        """Nothing has come since the mark of the last sentence: further marks belong to it and are dropped."""
        self._open = ""
        """What would close the quotes and brackets that earlier sentences opened, a straight quote last."""

    def feed(self, delta: str) -> list[str]:
        """Take the next piece and return the sentences it completes.

        Very short sentences that it completes together are returned as one, but never the first: that would hold up
        the first sound.
        """
        sentences: list[str] = []
        alone = 1 if self._first else 0
        for start in range(0, len(delta), PIECE):
            self._buffer += delta[start : start + PIECE]
            while (end := self._find_end()) is not None:
                sentence = self._take(end)
                if not is_speakable(sentence):
                    continue
                self._first = False
                if len(sentences) > alone and _share_breath(sentences[-1], sentence):
                    sentences[-1] += _gap(sentences[-1], sentence) + sentence
                else:
                    sentences.append(sentence)
        return sentences

    def flush(self) -> list[str]:
        """Return what is left at the end of the reply."""
        rest, self._buffer, self._scanned = self._buffer.strip(), "", 0
        return [rest] if is_speakable(rest) else []

    def _take(self, end: int) -> str:
        piece, self._buffer, self._scanned = self._buffer[:end], self._buffer[end:], 0
        self._behind_mark = not (piece[-1].isalnum() or piece[-1].isspace())
        # A paragraph closes what was left open: an emoticon or a sign for inches is no quote to wait for.
        self._open = "" if piece[-1] == "\n" else _still_open(self._open, piece)
        return piece.strip()

    def _find_end(self) -> int | None:
        """Return the index behind the first complete sentence, or None when more text is needed."""
        if not self._scanned:
            if self._behind_mark and self._buffer:
                self._buffer = self._buffer.lstrip(_FOLLOWERS)
                self._behind_mark = not self._buffer
            self._buffer = self._buffer.lstrip()
        # Nothing behind this window is looked at, whether it has arrived or not.
        window = self._buffer[:MAX_SENTENCE]
        for match in _MARK.finditer(window, self._scanned):
            verdict = self._judge(window, match.start())
            if isinstance(verdict, int):
                return verdict
            if verdict is _Verdict.WAIT:
                self._scanned = match.start()
                return self._overlong()
        self._scanned = len(window)
        return self._overlong()

    def _judge(self, window: str, index: int) -> int | _Verdict:
        """Return the end of the sentence if the mark at ``index`` ends one."""
        char, before = window[index], window[:index]
        if char == "\n":
            return index + 1 if _line_ends(before) else _Verdict.NO
        if char == "." or (not self._first and char in "!?;"):
            # Most full stops are decided by the next character alone, and hostile text has a great many.
            following = window[index + 1 : index + 2]
            if not following:
                return _Verdict.WAIT
            if following.isascii() and following.isalnum():
                return _Verdict.NO  # 3.14, example.com, a?b
        early = self._first and _is_clause(before)
        if (char in _CLAUSE_MARKS and not early) or not _ALNUM.search(before) or _is_inside(before):
            return _Verdict.NO
        end = self._behind_followers(window, index + 1)
        following = window[end : end + 1]
        if not following and (
            (char in ".;!?" and not early) or char == "." or self._closing_mark_may_follow(window[:end])
        ):
            return _Verdict.WAIT
        if char == ".":
            verdict = _full_stop(window, index, end, early)
        elif char == "…":
            verdict = None if early else _goes_on(window[end:])
        elif char in "!?;,:":
            verdict = _western(window, index, end, early)
        elif char in "：—" and before[-1].isdigit():
            verdict = _Verdict.WAIT if not following else _Verdict.NO if following.isdigit() else None
        else:
            verdict = None
        return end if verdict is None else verdict

    def _behind_followers(self, window: str, end: int) -> int:
        """Return the index behind the marks, quotes and brackets that belong to the mark in front of ``end``."""
        while match := _FOLLOWING.match(window, end):
            end = match.end()
            char = window[end : end + 1]
            if char not in ('"', "'", "*", "_"):
                break
            before = window[:end]
            if not (
                (char == '"' and _in_straight_quotes(self._open, before))
                or (char == "'" and _SINGLE_QUOTE.search(before))
                or (char in "*_" and _is_emphasised(before, char))
            ):
                break
            end += 1
        return end

    def _closing_mark_may_follow(self, before: str) -> bool:
        return (
            bool(_still_open(self._open, before))
            or _is_emphasised(before, "*")
            or _is_emphasised(before, "_")
            or _SINGLE_QUOTE.search(before) is not None
        )

    def _overlong(self) -> int | None:
        if len(self._buffer) <= MAX_SENTENCE:
            return None
        for marks in ("，,、：:", " "):
            cut = max(self._buffer.rfind(mark, MAX_SENTENCE // 3, MAX_SENTENCE) for mark in marks)
            if cut > 0:
                return cut + 1
        return MAX_SENTENCE


# ---------------------------------------------------------------- around a mark


def _still_open(pending: str, text: str) -> str:
    """Return what would close the quotes and brackets open behind ``text``; ``pending`` were open before it."""
    if not pending and not _QUOTES.search(text):
        return ""
    straight = '"' if _in_straight_quotes(pending, text) else ""
    pending = pending.rstrip('"')
    brackets = _BRACKETS.findall(text)
    if not brackets:
        return pending + straight
    stack = list(pending)
    for char in brackets:
        if char in _CLOSED_BY:
            stack.append(_CLOSED_BY[char])
            del stack[:-_MAX_DEPTH]
        elif char in stack:
            del stack[len(stack) - 1 - stack[::-1].index(char) :]
    return "".join(stack) + straight


def _in_straight_quotes(pending: str, text: str) -> bool:
    return (pending[-1:] == '"') != (text.count('"') % 2 == 1)


def _is_emphasised(before: str, char: str) -> bool:
    """Return whether bold or italics begun with ``char`` go on."""
    return char in before and (before.count(char) % 2 == 1 or before.count(char * 2) % 2 == 1)


def _is_clause(before: str) -> bool:
    """Return whether ``before`` is enough for a first clause: more than a letter or the number of a list."""
    return len(_ALNUM.findall(before)) >= MIN_FIRST_CLAUSE and not _is_list_number(before)


def _is_list_number(before: str) -> bool:
    return _LIST_NUMBER.match(before, before.rfind("\n") + 1) is not None


def _is_inside(before: str) -> bool:
    """Return whether a row of a table, code or the name of a link goes on, where no mark ends a sentence."""
    if not _INSIDES.search(before):
        return False
    if before.count("`") % 2 == 1 or before[before.rfind("\n") + 1 :].lstrip()[:1] == "|":
        return True
    bracket = before.rfind("[", -LINK_CHARS)
    return bracket >= 0 and bracket > before.rfind("]")


def _line_ends(before: str) -> bool:
    """Judge the end of a line."""
    if not _ALNUM.search(before):
        return before.isascii()  # a rule, and dropped; emoji go with the next line
    fence, _, code = before.lstrip().partition("\n")
    # The name of a language is nothing to say: it goes with the first line of the code.
    return not (fence[:3] in {"```", "~~~"} and "`" not in fence[3:] and not _ALNUM.search(code))


def _next_char(rest: str) -> str:
    """Return what follows behind spaces; nothing if it has not arrived."""
    return rest.lstrip()[:1]


def _goes_on(rest: str) -> _Verdict | None:
    """Judge a mark behind which only a small letter tells that the sentence goes on."""
    char = _next_char(rest)
    return _Verdict.WAIT if not char else _Verdict.NO if char.isascii() and char.islower() else None


def _western(window: str, index: int, end: int, early: bool) -> _Verdict | None:
    """Judge ``! ? ; , :`` of ASCII; None is an end."""
    char, before, following = window[index], window[:index], window[end : end + 1]
    if char == ";" and _ENTITY.search(before[-8:]):
        return _Verdict.NO
    tight = following.isascii() and not following.isspace()
    if not early:
        if following.isascii() and (following.isalnum() or following in "=[/&_-"):
            return _Verdict.NO
        # "Really?" she asked.
        return _goes_on(window[end:]) if window[end - 1] in _CLOSING else None
    tail = "" if before[-1].isspace() else before.split()[-1]
    if char in ",:" and tail[-1:].isdigit():
        return _Verdict.WAIT if not following else _Verdict.NO if following.isdigit() else None
    # The first clause is not held up by the wait for what follows, unless it may be an address or an emoticon.
    if not tail or _ADDRESS.search(tail) or (char == ":" and len(tail) == 1 and tail.isascii()):
        return _Verdict.WAIT if not following else _Verdict.NO if tight else None
    return None


def _full_stop(window: str, index: int, end: int, early: bool) -> _Verdict | None:
    """Judge a full stop behind which something follows; None is an end."""
    before, following, rest = window[:index], window[end], window[end:]
    if (following.isascii() and not following.isspace()) or window[index + 1] in ",:;，：；、":
        return _Verdict.NO  # 3.14, example.com, etc.,
    if before[-1] == "." or window[index + 1] == ".":
        return None if early else _goes_on(rest)
    if _is_list_number(before):
        return _Verdict.NO
    verdict = _abbreviation(before, rest)
    if verdict is None and not early and window[end - 1] in _CLOSING:
        return _goes_on(rest)
    return verdict


def _abbreviation(before: str, rest: str) -> _Verdict | None:
    """Judge a full stop between ``before`` and ``rest`` by the words there; None is an end."""
    near = before[-_LAST_WORD_CHARS:]
    if _HOUR.search(near):
        return _before_name(rest, lambda word: word not in _ZONES_AND_DAYS)
    match = _LAST_WORD.search(near)
    if match is None:
        return None
    word, lower = match[0], match[0].lower()
    if lower in _ALWAYS_CONTINUED or word in _TITLES:
        return _Verdict.NO
    if lower in _NUMBERED:
        char = _next_char(rest)
        return _Verdict.WAIT if not char else _Verdict.NO if char.isdigit() else None
    if lower == "etc":
        return _before_name(rest, lambda _: True)
    if word == "I":
        # "You and I." ends; "Sir I. Newton" does not.
        named = _CAPITAL_WORD.search(near[:-1]) is not None
        return _before_name(rest, lambda word: not named or word in _STARTERS)
    if _ACRONYM.fullmatch(word) or (lower in _NAMES and (word[0].isupper() or lower not in _CAPITAL_NAMES)):
        return _before_name(rest, _STARTERS.__contains__)
    return None


def _before_name(rest: str, begins: Callable[[str], bool]) -> _Verdict | None:
    """Judge by the next word: an end if it has a capital and ``begins``, given it in small letters, says so."""
    gap = _GAP.match(rest)
    start = gap.end() if gap else 0
    char = rest[start : start + 1]
    if not char:
        return _Verdict.WAIT
    word = _NEXT_WORD.match(rest, start)
    if word is None or char.islower():
        return _Verdict.NO
    if word.end() == len(rest):
        return _Verdict.WAIT
    return None if begins(word[0].lower()) else _Verdict.NO


def _share_breath(first: str, second: str) -> bool:
    """Return whether two sentences are so short that they are said together. Items of a list are not."""
    return not first[-1].isalnum() and second[0].isalnum() and _is_short(first) and _is_short(second)


def _gap(first: str, second: str) -> str:
    return "" if _WIDE.match(first[-1]) or _WIDE.match(second[0]) else " "


def _is_short(sentence: str) -> bool:
    if len(sentence) > 4 * SHORT_BREATH:
        return False
    letters = _ALNUM.findall(sentence)
    return len(letters) + sum(1 for letter in letters if _WIDE.match(letter)) <= SHORT_BREATH
