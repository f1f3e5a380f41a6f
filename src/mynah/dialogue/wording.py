"""What a voice says and what a display shows of a sentence that a language model wrote.

Models write Markdown, emoji, tables, formulas and addresses. A voice gets the words only; a display gets the sentence
as it was written, on one line. Everything here works on one sentence at a time and needs no memory of the one before:
marks are dropped singly, so a pair that is cut apart between two sentences leaves nothing behind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mynah.dialogue.emotion import FACES
from mynah.errors import ConfigError

CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
"""Inside of a regular expression's character class: scripts that put no spaces between words, and Hangul."""

# All expressions below are linear: they are bounded, or no part may match what another one begins with.
_BLANKS = re.compile(r"[^\S\n]+")
_LINE_ENDS = re.compile(r" ?\n[ \n]*")
_SPACES = re.compile(r"\s+")

_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\u231a\u231b\u2328\u23cf\u23e9-\u23fa"
    "\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2934\u2935\u203c\u2049\u3030\u303d\u3297\u3299"
    "\ufe0e\ufe0f\u200d\u20e3\U000e0020-\U000e007f]+"
)
_TONES = "\ufe0e\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
"""What may follow an emoji and belongs to it: the form of display and the colour of skin."""
_MOOD = "".join(FACES) + _TONES + " "

_TAG = re.compile(
    r"<!--(?:[^-<]|-(?!->)|<(?!!--))*+-->|"
    r"</?(?:a|abbr|audio|b|big|blockquote|body|br|break|center|code|dd|del|details|div|dl|dt|em|emphasis|font|h[1-6]|head|hr"
    r"|html|i|img|ins|kbd|li|mark|ol|p|pre|prosody|s|say-as|small|span|speak|strike|strong|style|sub|summary|sup|table"
    r"|tbody|td|tfoot|th|thead|tr|tt|u|ul|video|voice)"
    r"(?: [\w:-]++ ?= ?(?:\"[^\"<]*+\"|'[^'<]*+'|[^\s\"'<>=]++))*+ ?/?>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(amp|lt|gt|quot|apos|#39|nbsp);")
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "#39": "'", "nbsp": " "}
_FENCE = re.compile(r"^ ?(?:`{3,}+|~{3,}+)[^`~\n]*+$|(?<!`)`{3,}+[\w+#.-]{0,20}+$", re.MULTILINE)
_LINK = re.compile(
    r"!?\[([^\[\]\n]*+)\](?:\((?:[^()\s]|\([^()\s]*+\))*+(?: (?:\"[^\"\n]*+\"|'[^'\n]*+'))?\)|\[[^\[\]\n]*+\])"
    r"|\[\^[^\[\]\s]{1,20}\]"
)
_URL = re.compile(
    r"(?:<?https?://|(?<![A-Za-z0-9.@/])www\.)(?:[A-Za-z0-9._~%:+-]{1,100}@)?(?:www\.)?"
    r"([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::\d{1,5})?([/?#][!#-;=?-_a-z{}~]*)?>?"
)
_SCHEME = re.compile(r"\bhttps?://")
_TEX_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*+)\}\{([^{}]*+)\}")
_TEX_COMMAND = re.compile(r"\\[a-z]{2,12}(?![A-Za-z])")
_TEX_GROUP = re.compile(r"[\^_]\{([^{}]*+)\}")
_TEX_DOLLARS = re.compile(r"\$\$|\\[\[\]()]")
_TEX_INLINE = re.compile(r"\$(?! )([^$\n]{1,200})(?<! )\$(?!\d)")
_TEX_SYMBOLS = {
    "times": "×", "cdot": "×", "div": "÷", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ne": "≠",
    "neq": "≠", "approx": "≈", "pi": "π", "circ": "°", "degree": "°", "infty": "∞", "sqrt": "√", "left": "",
    "right": "", "text": "", "mathrm": "", "mathbf": "", "quad": " ",
}  # fmt: skip
"""What is left of a command in a formula; other commands stay as they are written."""
_TEX_SIGN = re.compile(r"[\\^_={}+]")
_SQUARED = re.compile(r"(?<=[A-Za-z0-9)])\^([23])(?!\d)")
_TIMES = re.compile(r"(?<=\d)( ?)\*(?= ?\d)")
_LINE_START = re.compile(r"^(?: ?(?:>|#{2,6}|#(?= )|[-*+](?= )|[•◦‣●○▪]) ?)++(?:\[[ xX]\] )?", re.MULTILINE)
_EMPHASIS = re.compile(
    r"(?<!\d)\*\*+|\*\*+(?!\d)|(?<![A-Za-z0-9_])__+|(?<!_)__++(?![A-Za-z0-9])|~~+|`+"
    r"|(?<![A-Za-z0-9_*\\])[*_](?=\S)|(?<=[^\s*\\])[*_](?![A-Za-z0-9_*])"
)
_ESCAPE = re.compile(r"\\([*_#`~\[\]()>+.!|$-])")
_RANGE = re.compile(r"(?<=[\d%℃°])( ?)[~～](?= ?\d)")
_WAVE = re.compile(r"[~～]+")
_LOOSE = re.compile(r" (?=[,.!?;:，。！？；：、](?:\s|$|[^\x00-\x7f]))")
_ALNUM = re.compile(r"[^\W_]")
_HAN = re.compile(f"[{CJK}]")
_EMPTY_LINE = "|:-=*_+ "
"""A line of nothing else is a rule, or the second line of a table."""


def spoken(text: str) -> str:
    """Return what a voice should say of ``text``, on one line.

    * Emoji, Markdown and HTML marks go, their contents stay. Of a fenced block of code the fence goes, with the name
      of the language; its lines are read.
    * Links and pictures are read by their names, bare addresses by their host. E-mail addresses stay.
    * The cells of a row of a table are separated by commas; rules and the line under a table's head go.
    * A ``*`` between numbers becomes a multiplication sign, which voices read. Simple formulas lose their TeX.
    * A ``~`` between numbers becomes what the language of the sentence writes for a range; others go.
    """
    text = _LINE_ENDS.sub("\n", _BLANKS.sub(" ", text))
    text = _FENCE.sub("", text)
    text = _TAG.sub(" ", text)
    text = _LINK.sub(r"\1", text)
    text = _SCHEME.sub("", _URL.sub(_host, text))
    if "|" in text or "\n" in text or text[:1] in _EMPTY_LINE:
        text = "\n".join(_line(line.strip()) for line in text.split("\n"))
    if "\\" in text or "$" in text or "^" in text:
        text = _formula(text)
    text = _LINE_START.sub("", text)
    text = _TIMES.sub(r"\1×", text)
    text = _EMPHASIS.sub("", text)
    text = _ESCAPE.sub(r"\1", text)
    if "~" in text or "～" in text:
        text = _RANGE.sub(r"\1到" if _HAN.search(text) else r"\1–", text)
        text = _WAVE.sub(" ", text)
    text = _EMOJI.sub(" ", text)
    text = _ENTITY.sub(lambda match: _ENTITIES[match[1]], text)
    return _LOOSE.sub("", _SPACES.sub(" ", text)).strip()


def shown(text: str) -> str:
    """Return what a device's display should show of ``text``: the sentence as it was written, on one line.

    Markdown stays: some clients render it, and on those that do not it still says what is a heading or a list. Line
    ends become spaces, because displays scroll one line.

    Emoji stay as well, within a sentence and when they are no faces. Only faces at either end of a sentence go: there
    they are the mood, not a part of what is said. The device gets the mood as a face of its own, and devices are used
    to sentences without it; the fonts of many lack it and would show a gap.
    """
    line = _SPACES.sub(" ", text).strip()
    kept = line.rstrip(_MOOD)
    if kept:
        # The tone of an emoji that stays was taken off with the faces behind it.
        faces = line[len(kept) :].lstrip(_TONES)
        kept = line[: len(line) - len(faces)]
    rest = kept.lstrip(_MOOD)
    # A joiner makes one picture of the face and what follows: that is no mood.
    return kept if rest.startswith("\u200d") else rest


def is_speakable(text: str) -> bool:
    """Return whether there is anything to pronounce."""
    return _ALNUM.search(text) is not None


def _host(match: re.Match[str]) -> str:
    path = match[2] or ""
    # Punctuation behind an address is that of the sentence.
    return match[1] + path[len(path.rstrip(".,;:!?)]}'*_~")) :]


def _line(line: str) -> str:
    if not line.strip(_EMPTY_LINE):
        return ""
    if line[0] == "|" or line[-1] == "|":
        return ", ".join(cell for cell in (cell.strip() for cell in line.split("|")) if cell)
    return line


def _formula(text: str) -> str:
    text = _TEX_DOLLARS.sub("", text)
    text = _TEX_INLINE.sub(_inline, text)
    text = _TEX_FRACTION.sub(r"\1/\2", text)
    text = _TEX_COMMAND.sub(lambda match: _TEX_SYMBOLS.get(match[0][1:], match[0]), text)
    return _SQUARED.sub(lambda match: "²" if match[1] == "2" else "³", _TEX_GROUP.sub(_script, text))


def _inline(match: re.Match[str]) -> str:
    inner = match[1]
    # "$5 and 6$" are prices; formulas have signs, or are one variable.
    is_formula = _TEX_SIGN.search(inner) or (len(inner) == 1 and inner.isalpha())
    return inner if is_formula else match[0]


def _script(match: re.Match[str]) -> str:
    return match[0][0] + match[1]


class Replacements:
    """Words that a voice should say in another way: ``{"MQTT": "M Q T T", "重庆": "崇庆"}``.

    The longest key that fits at a place wins, and what it was replaced with is not looked at again. A key that begins
    or ends with a letter or digit of a script with spaces stands for whole words: "AI" is not found in "said", yet in
    "用AI写". Chinese, Japanese and Korean keys are found anywhere. Upper and lower case make no difference, and no
    character of a key has a special meaning.
    """

    __slots__ = ("_pattern", "_values")

    def __init__(self, mapping: Mapping[str, str]) -> None:
        """Take keys and what to say for them. Of keys that differ in case only the first counts.

        Raises ConfigError for a key without any visible character.
        """
        if any(not key.strip() for key in mapping):
            raise ConfigError("a key of the replacements is empty: say which word is to be replaced")
        longest_first = sorted(mapping, key=len, reverse=True)
        # Keys of the two kinds never begin at the same place, so words are looked for at the beginnings of words only.
        words = [key for key in longest_first if _LETTER.match(key)]
        others = [key for key in longest_first if not _LETTER.match(key)]
        self._values = tuple(mapping[key] for key in (*words, *others))
        branches = [f"(?<!{_LETTER.pattern}){_any_of(words)}"] * bool(words) + [_any_of(others)] * bool(
            others
        )
        self._pattern = re.compile("|".join(branches), re.IGNORECASE) if branches else None

    def apply(self, text: str) -> str:
        """Return ``text`` with all keys replaced."""
        return text if self._pattern is None else self._pattern.sub(self._value, text)

    def _value(self, match: re.Match[str]) -> str:
        return self._values[(match.lastindex or 1) - 1]


# Without case: to fold thirty thousand ideographs takes the compiler milliseconds.
_LETTER = re.compile(f"(?-i:[^\\W{CJK}])")


def _any_of(keys: Sequence[str]) -> str:
    """Return an expression with one group for each key, none of which ends within a word."""
    first = re.escape("".join({key[0] for key in keys}))
    groups = "|".join(f"({re.escape(key)})" for key in keys)
    letter = _LETTER.pattern
    return f"(?=[{first}])(?:{groups})(?:(?<!{letter})|(?!{letter}))"
