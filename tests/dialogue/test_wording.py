"""What a voice says and a display shows of what a language model wrote."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.text import SentenceSplitter
from mynah.dialogue.wording import Replacements, is_speakable, shown, spoken
from mynah.errors import ConfigError

SPOKEN = {
    # Markdown
    "**Hi** 😊 see [docs](http://x.y/z), `code` snake_case": "Hi see docs, code snake_case",
    "# Title\n- item one\n> quote\n* two\n+ three\n1. four": "Title item one quote two three 1. four",
    "##标题\n• 苹果": "标题 苹果",
    "- [x] done\n- [ ] open": "done open",
    "*it* **bold** ***both*** __under__ _line_ ~~gone~~": "it bold both under line gone",
    "这是*重点*和**粗体**内容": "这是重点和粗体内容",
    "> - **Nested** quote": "Nested quote",
    "one\n---\ntwo\n***\nthree": "one two three",
    r"a \* b and \_c\_ for \$5": "a * b and _c_ for $5",
    "![a cat](http://x.y/cat.png) sits": "a cat sits",
    "[One][1] and [Wiki](https://x.y/A_(b) 'c') [^2]": "One and Wiki",
    '[Wiki](https://x.y/A_(b)) and [docs](a.md "Title")': "Wiki and docs",
    "text[^1] and [1]": "text and [1]",
    # pairs that were cut apart
    "**Bold begins.": "Bold begins.",
    "Bold ends.**": "Bold ends.",
    "*it begins": "it begins",
    "ends it.*": "ends it.",
    "~~gone": "gone",
    # code
    "```python\nprint('a_b')\n```": "print('a_b')",
    "```": "",
    "Use ```python": "Use",
    "Say ```print(1)``` now": "Say print(1) now",
    # tables
    "| Name | Age |\n|:---|---:|\n| Bob | 5 |": "Name, Age Bob, 5",
    "| 名字 | **年龄** |": "名字, 年龄",
    # addresses
    "see https://www.foo.com/a?b.": "see foo.com.",
    "(https://a.com/x), <https://u:p@h.org:80/x>!": "(a.com), h.org!",
    "见https://a.com/x，然后 https://b.cn。": "见a.com，然后 b.cn。",
    "https://例子.中国 here": "例子.中国 here",
    "www.example.com/a?b=c or example.com": "example.com or example.com",
    "mail a.b_c@www.example.org now": "mail a.b_c@www.example.org now",
    # HTML
    "<b>Hi</b> <br/>you <a href=\"x\" class='y'>there</a><!-- no -->": "Hi you there",
    "a < b and c > d, x<b and c>d": "a < b and c > d, x<b and c>d",
    "5 &lt; 6 &amp; R&D; &quot;a&quot;": '5 < 6 & R&D; "a"',
    # numbers and formulas
    "3 * 4 = 12, 2*3": "3 × 4 = 12, 2×3",
    "2**3 and a*b": "2**3 and a*b",
    "$E = mc^2$ and $x$ cost $5 and $6": "E = mc² and x cost $5 and $6",
    r"\(a \times b\) \[\frac{1}{2}\] x^{3}": "a × b 1/2 x³",
    "3~5 days, ~5 km": "3–5 days, 5 km",
    "大约3～5个，好的～": "大约3到5个，好的",
    # emoji
    "Great 🎉! 1️⃣ First 👍🏽 👨‍👩‍👧 ❤️": "Great! 1 First",
    "5°C ± 1 % © 2024 + 3 # @ &": "5°C ± 1 % © 2024 + 3 # @ &",
    "-5 degrees": "-5 degrees",
    "": "",
    " \n ": "",
}


@pytest.mark.parametrize("text", SPOKEN)
def test_spoken(text: str) -> None:
    assert spoken(text) == SPOKEN[text]


@given(st.lists(st.sampled_from(["word", "字", "5", "don't", "a-b", ",", ".", "？", "(x)", "3.5", "C++"])))
def test_plain_text_is_spoken_as_it_is(words: list[str]) -> None:
    text = "x".join(["", *words, ""])
    assert spoken(text) == text


MARKS = st.sampled_from(
    [*"ab1 \n.,!#*_`~|[]()<>$\\^{}-+:&;/😊字～", "**", "```", "https://", "www.", "<b>", "\\frac", "\\times"]
)


@given(st.lists(MARKS, max_size=60).map("".join))
def test_nothing_breaks_and_everything_is_one_line(text: str) -> None:
    for line in (spoken(text), shown(text)):
        assert line == " ".join(line.split())
        assert len(line) <= 2 * len(text)


@given(st.lists(st.sampled_from([*"ab \n.,*_`~😊字～👍🏽", "**", "```", "~~"]), max_size=60).map("".join))
def test_no_marks_and_no_emoji_are_left(text: str) -> None:
    said = spoken(text)
    assert not set("`~～😊👍🏽") & set(said)
    assert "**" not in said


def test_a_block_of_code_in_the_stream_leaves_no_marks() -> None:
    reply = "Here you are:\n```python\nfor i in x: print(i)\n```\nThat is **all. Good** bye."
    splitter = SentenceSplitter()
    said = [spoken(sentence) for char in reply for sentence in splitter.feed(char)]
    said += map(spoken, splitter.flush())
    assert said == ["Here you are:", "for i in x: print(i)", "That is all.", "Good bye."]


SHOWN = {
    "😂 Well,": "Well,",
    "太好了😊": "太好了",
    "好的😊\n你好": "好的😊 你好",
    "**Hi** 🎉": "**Hi** 🎉",
    "# Title\n- `x`  y": "# Title - `x` y",
    "I ❤️ you 💪🏽": "I ❤️ you",
    "👍🏽": "👍🏽",
    "✌️ 😊": "✌️",
    "❤️‍🔥 hot": "❤️‍🔥 hot",
    "太好了🎉😂": "太好了🎉",
    "😊": "",
    "🎉": "🎉",
}


@pytest.mark.parametrize("text", SHOWN)
def test_shown(text: str) -> None:
    assert shown(text) == SHOWN[text]


def test_is_speakable() -> None:
    assert is_speakable("5") and is_speakable("好") and not is_speakable("😊 … **")


HOSTILE = ["[", "[a](x", "](", "[a](x ", "<", "<b ", '<b a="', "<b a=b ", "<!--", "$", "$a", "\\(", "\\frac{", "^{",
           "*", "* ", "_", "`", "```", "~", "5~", "5 *", "|", "| ", "\n", " ", " \n", "> ", "# ", "- ", "https://",
           "https://a:", "www.", "www.a.", "https://a/.", "&amp;", "&", "😂", "\ufe0f", "[^", "\\",
           "...", " ."]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_no_longer_than_its_length_warrants(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    for whole in (f"x{text}, x", f"5{text}5", f"x{text}x"):
        began = time.thread_time()
        spoken(whole)
        shown(whole)
        # A tenth of a second; with the square of the length it would be four.
        assert time.thread_time() - began < 2


# ---------------------------------------------------------------- replacements


@pytest.mark.parametrize(
    ("mapping", "text", "said"),
    [
        ({"MQTT": "M Q T T"}, "Use mqtt, not MQTT5 or xMQTT.", "Use M Q T T, not MQTT5 or xMQTT."),
        ({"AI": "人工智能"}, "用AI写 said AI", "用人工智能写 said 人工智能"),
        ({"重庆": "崇庆"}, "在重庆市", "在崇庆市"),
        ({"AI": "A", "AI lab": "B"}, "the AI lab of AI labs", "the B of A labs"),
        ({"a": "b", "b": "a"}, "a b", "b a"),
        ({"C++": "C plus plus", "a.b": "x", "(": "["}, "c++ a.b axb (", "C plus plus x axb ["),
        ({"cat": r"\1 \g<0>"}, "cat", r"\1 \g<0>"),
        ({"°C": " degrees"}, "5°C", "5 degrees"),
        ({"K": "kilo"}, "\u212a k", "kilo kilo"),
        ({"Tea": "1", "tea": "2"}, "TEA", "1"),
        ({"é": "e"}, "É été", "e été"),
        ({"x": ""}, "x y", " y"),
        ({}, "same", "same"),
    ],
)
def test_replacements(mapping: dict[str, str], text: str, said: str) -> None:
    assert Replacements(mapping).apply(text) == said


@pytest.mark.parametrize("key", ["", " ", "\n"])
def test_an_empty_key_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="empty"):
        Replacements({"a": "b", key: "x"})


KEYS = st.text(alphabet="ab字.*+( ", min_size=1, max_size=4).filter(lambda key: bool(key.strip()))


@given(
    st.dictionaries(KEYS, st.sampled_from(["X", "a", "字", "\\1"]), max_size=5),
    st.text(alphabet="ab字.*+( c", max_size=30),
)
def test_replacements_agree_with_a_plain_search(mapping: dict[str, str], text: str) -> None:
    def is_letter(char: str) -> bool:
        return char.isascii() and char.isalnum()

    said, at = "", 0
    while at < len(text):
        for key in sorted(mapping, key=len, reverse=True):
            end = at + len(key)
            split_before = is_letter(key[0]) and at > 0 and is_letter(text[at - 1])
            split_behind = is_letter(key[-1]) and is_letter(text[end : end + 1])
            if text.startswith(key, at) and not split_before and not split_behind:
                said, at = said + mapping[key], end
                break
        else:
            said, at = said + text[at], at + 1
    assert Replacements(mapping).apply(text) == said


@given(st.text(min_size=1).filter(lambda key: bool(key.strip())), st.text())
def test_any_key_stands_for_itself(key: str, value: str) -> None:
    assert Replacements({key: value}).apply(key) == value


def test_many_replacements_in_a_long_text() -> None:
    replacements = Replacements({f"word{n}": f"w{n}" for n in range(500)})
    began = time.thread_time()
    assert replacements.apply("word7 and word499. " * 300) == "w7 and w499. " * 300
    assert time.thread_time() - began < 10
