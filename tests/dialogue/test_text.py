"""Sentence splitting in Chinese, English and both, whatever the pieces the text arrives in."""

from __future__ import annotations

import time
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.text import MAX_SENTENCE, SHORT_BREATH, SentenceSplitter


def split(text: str, piece: int = 1) -> list[str]:
    splitter = SentenceSplitter()
    sentences = []
    for start in range(0, len(text), piece):
        sentences += splitter.feed(text[start : start + piece])
    return sentences + splitter.flush()


def letters(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


def cuts(sentences: list[str]) -> set[int]:
    """Return how many letters stand before each cut."""
    return set(accumulate(len(letters(sentence)) for sentence in sentences))


FIRST = {
    "Sure, I can help. It is sunny. Bye": ["Sure,", "I can help.", "It is sunny.", "Bye"],
    "Pi is 3.14 today. Good.": ["Pi is 3.14 today.", "Good."],
    "It costs $1,000.50 now. Wow!": ["It costs $1,000.50 now.", "Wow!"],
    "Well, really? Yes... I think so. ok": ["Well,", "really?", "Yes...", "I think so.", "ok"],
    '"I see." She left.': ['"I see."', "She left."],
    "1. First\n2. Second": ["1. First", "2. Second"],
    "1、苹果，2、梨": ["1、苹果，", "2、梨"],
    "你好，我是小智。今天天气不错！价格是3.5元，对吗？": [
        "你好，",
        "我是小智。",
        "今天天气不错！",
        "价格是3.5元，对吗？",
    ],
    "“好的。”他说。": ["“好的。”", "他说。"],
    "我喜欢 Python 3.11。It is fast. 对吧？": ["我喜欢 Python 3.11。", "It is fast.", "对吧？"],
    "10:30 is fine, I think.": ["10:30 is fine,", "I think."],
    "10：30开会，好": ["10：30开会，", "好"],
    "In 2019, he left.": ["In 2019,", "he left."],
    "https://a.com/x,y?z, and more": ["https://a.com/x,y?z,", "and more"],
    "See [docs, here. ok](http://a.b/c,d) now, fine.": ["See [docs, here. ok](http://a.b/c,d) now,", "fine."],
    "Hi :) there": ["Hi :)", "there"],
    "Hi :D there, you": ["Hi :D there,", "you"],
    "**Note:** it rains.": ["**Note:**", "it rains."],
    "e.g., this is it": ["e.g.,", "this is it"],
    "A, B and me. Good.": ["A, B and me.", "Good."],
    "嗯…好吧": ["嗯…", "好吧"],
    "Sure—I can": ["Sure—", "I can"],
    "": [],
    "…！。": [],
}
"""Whole replies: the first piece ends with a clause."""

LATER = {
    # abbreviations
    "Dr. Smith met Mr. J. Brown, e.g. on Monday. Fine.": [
        "Dr. Smith met Mr. J. Brown, e.g. on Monday.",
        "Fine.",
    ],
    "The U.S. Army left. We live in the U.S. She stayed.": [
        "The U.S. Army left.",
        "We live in the U.S.",
        "She stayed.",
    ],
    "I said no. He said no. 5 is alive.": ["I said no.", "He said no. 5 is alive."],
    "See fig. 3 and vol. 2 now. She ate a fig. Good fruit.": [
        "See fig. 3 and vol. 2 now.",
        "She ate a fig.",
        "Good fruit.",
    ],
    "Apples, pears, etc. are cheap. Buy nuts etc. Then go.": [
        "Apples, pears, etc. are cheap.",
        "Buy nuts etc.",
        "Then go.",
    ],
    "Bread, etc., is cheap. Good.": ["Bread, etc., is cheap.", "Good."],
    "Smith Inc. Shares rose. He works at Smith Inc. The pay is good.": [
        "Smith Inc. Shares rose.",
        "He works at Smith Inc.",
        "The pay is good.",
    ],
    "He came on Sat. Jan. 5 to St. Petersburg. The cat sat. Dogs bark.": [
        "He came on Sat. Jan. 5 to St. Petersburg.",
        "The cat sat.",
        "Dogs bark.",
    ],
    "在 U.S. 工作很好。是的": ["在 U.S. 工作很好。", "是的"],
    # initials
    "J. R. R. Tolkien wrote it. He is dead.": ["J. R. R. Tolkien wrote it.", "He is dead."],
    "It was you and I. Bob left. Sir I. Newton came.": [
        "It was you and I.",
        "Bob left.",
        "Sir I. Newton came.",
    ],
    "Take vitamin C. It helps.": ["Take vitamin C.", "It helps."],
    # times, dates, numbers, versions
    "He came at 10:30 a.m. and left. Then she came at 5 p.m. Bob stayed.": [
        "He came at 10:30 a.m. and left.",
        "Then she came at 5 p.m.",
        "Bob stayed.",
    ],
    "Call at 3 p.m. EST or 5p.m. Monday. Fine.": ["Call at 3 p.m. EST or 5p.m. Monday.", "Fine."],
    "Use v1.2.3 of 2024.05.01. It has 1,000.5 points. Done.": [
        "Use v1.2.3 of 2024.05.01.",
        "It has 1,000.5 points.",
        "Done.",
    ],
    "It was in 2019. Then it ended.": ["It was in 2019.", "Then it ended."],
    # addresses and code
    "See www.example.com/a?b=c!d for more. Mail a.b@c.org. Or https://x.com/a?b. Done.": [
        "See www.example.com/a?b=c!d for more.",
        "Mail a.b@c.org.",
        "Or https://x.com/a?b.",
        "Done.",
    ],
    "Open main.py and Node.js. It runs.": ["Open main.py and Node.js.", "It runs."],
    "Use `a.b(c); d! e. f` there. Fine.": ["Use `a.b(c); d! e. f` there.", "Fine."],
    "If x!=y; then AT&amp;T wins. Ok": ["If x!=y;", "then AT&amp;T wins.", "Ok"],
    # ellipses and rows of marks
    "I think... maybe not. Well... Yes it is.": ["I think... maybe not.", "Well...", "Yes it is."],
    "I wait… and wait. 我想……应该可以。好吧……": ["I wait… and wait.", "我想……", "应该可以。", "好吧……"],
    "Really?! Yes!!! No!? Good": ["Really?!", "Yes!!!", "No!?", "Good"],
    # quotes and brackets
    'He said "Stop." and left. "Why?" she asked. "No reason." He left.': [
        'He said "Stop." and left.',
        '"Why?" she asked.',
        '"No reason."',
        "He left.",
    ],
    "“好的。我来。”他说。「真的吗？」她问。（当然！）是": [
        "“好的。",
        "我来。”",
        "他说。",
        "「真的吗？」",
        "她问。",
        "（当然！）",
        "是",
    ],
    "(It is late.) We go. 'Good night.' He sleeps. It's 5\" wide. Good.": [
        "(It is late.)",
        "We go.",
        "'Good night.'",
        "He sleeps.",
        "It's 5\" wide.",
        "Good.",
    ],
    # Markdown
    "**It is done.** Next one. *Great stuff!* Third one.": [
        "**It is done.**",
        "Next one.",
        "*Great stuff!*",
        "Third one.",
    ],
    "1. First. Done here.\n2. Second\n10. Tenth\na. Letter\n\n- One. Two.\n- Three": [
        "1. First.",
        "Done here.",
        "2. Second",
        "10. Tenth",
        "a. Letter",
        "- One.",
        "Two.",
        "- Three",
    ],
    "**1. Bold number.** Text.": ["**1. Bold number.**", "Text."],
    "| a, b | c. d |\n|---|---|\n| 1. Row! No | 2 |\nThe end. Bye": [
        "| a, b | c. d |",
        "| 1. Row! No | 2 |",
        "The end.",
        "Bye",
    ],
    "```python\nx = 1. y; z\nprint(x)\n```\nDone. Bye": [
        "```python\nx = 1. y; z",
        "print(x)",
        "Done.",
        "Bye",
    ],
    "# Title\nText is here.\n---\nMore is here": ["# Title", "Text is here.", "More is here"],
    # emoji
    "太好了😊。Yes it is 😂 so. 🎉\nParty": ["太好了😊。", "Yes it is 😂 so.", "🎉\nParty"],
    # both languages
    "我用 Python 3.11 写了 v2.0。It works! 真好": ["我用 Python 3.11 写了 v2.0。", "It works!", "真好"],
    "今天3.5度,很冷. 好吧": ["今天3.5度,很冷.", "好吧"],
}
"""What follows a first clause: whole sentences."""


@pytest.mark.parametrize("text", FIRST)
@pytest.mark.parametrize("piece", [1, 2, 5])
def test_first_clause_and_sentences(text: str, piece: int) -> None:
    assert split(text, piece) == FIRST[text]


@pytest.mark.parametrize("text", FIRST)
def test_at_once(text: str) -> None:
    assert split(text, 1000) == FIRST[text]


@pytest.mark.parametrize("text", LATER)
@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_whole_sentences(text: str, piece: int) -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("Listen, ") == ["Listen,"]
    found = []
    for start in range(0, len(text), piece):
        found += splitter.feed(text[start : start + piece])
    found += splitter.flush()
    assert cuts(found) <= cuts(LATER[text])
    if piece < 1000:
        assert found == LATER[text]
    else:  # very short sentences may share a breath
        assert "".join("".join(found).split()) == "".join("".join(LATER[text]).split())


def test_first_clause_leaves_before_the_sentence_is_over() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("Of course,") == ["Of course,"]
    assert splitter.feed(" a, b, c") == []
    assert splitter.feed(" and d! E") == ["a, b, c and d!"]


@pytest.mark.parametrize(
    "text", ["Sure,", "Hello!", "Really?", "Note:", "你好，", "好的。", "真的？", "嗯嗯…", "Sure—"]
)
def test_first_clause_does_not_wait_for_another_character(text: str) -> None:
    assert SentenceSplitter().feed(text) == [text]


@pytest.mark.parametrize(
    ("early", "late"), [("Hello!", "! Good day. "), ("好！", "！！好日子。"), ("真的？", "？）好日子。")]
)
def test_marks_that_come_after_their_sentence_are_not_the_next_ones(early: str, late: str) -> None:
    splitter = SentenceSplitter()
    assert splitter.feed(early) == [early]
    (second,) = splitter.feed(late)
    assert second in {"Good day.", "好日子。"}


def test_closing_quote_is_waited_for() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("“好的。") == []
    assert splitter.feed("”") == ["“好的。”"]
    assert splitter.feed("他说：“是的。") == []
    assert splitter.feed("”") == ["他说：“是的。”"]


def test_very_short_sentences_share_a_breath_when_they_are_there() -> None:
    text = "Yes. No. OK. It is a long sentence. 好的。嗯。Fine"
    assert split(text, 1000) == ["Yes.", "No. OK.", "It is a long sentence.", "好的。嗯。", "Fine"]
    assert split(text) == ["Yes.", "No.", "OK.", "It is a long sentence.", "好的。", "嗯。", "Fine"]
    assert split("Things:\n- Tea.\n- Milk.\n- Eggs.\n", 1000) == ["Things:", "- Tea.", "- Milk.", "- Eggs."]


def test_text_without_punctuation_is_cut_at_a_space() -> None:
    sentences = split("word " * 200)
    assert all(len(sentence) <= MAX_SENTENCE for sentence in sentences)
    assert " ".join(sentences).split() == ["word"] * 200
    assert all(len(sentence) <= MAX_SENTENCE for sentence in split("字" * 1000))


@pytest.mark.parametrize(
    "text", ["你好" + ":" * 5000, "word " * 2000 + "end.", "Mr. t is 3:05 p.m., " * 500, "a(" * 3000]
)
def test_a_text_that_comes_at_once_is_cut_like_one_that_comes_in_pieces(text: str) -> None:
    for piece in (1, len(text)):
        sentences = split(text, piece)
        assert all(len(sentence) <= MAX_SENTENCE for sentence in sentences)
        assert letters("".join(sentences)) == letters(text)


ATOMS = st.sampled_from(
    [
        *"ab1IX .,!?;:…\n。！？，、：—“”「」()[]\"'*_`|~-#😊字好",
        "Dr. ", "U.S. ", " The", "p.m. ", "etc. ", "No. ", "...", "**", "```", "http://", "e.g. ", "5 ",
        "Yes. ", " He ",
    ]
)  # fmt: skip
TEXTS = st.lists(ATOMS, max_size=60).map("".join)


@given(TEXTS, st.integers(1, 9))
def test_nothing_speakable_is_lost(text: str, piece: int) -> None:
    sentences = split(text, piece)
    assert letters("".join(sentences)) == letters(text)
    assert all(letters(sentence) for sentence in sentences)


@given(TEXTS, st.integers(2, 30))
def test_where_it_is_cut_does_not_depend_on_the_pieces(text: str, piece: int) -> None:
    one_by_one, by_pieces, at_once = split(text), split(text, piece), split(text, 1000)
    for sentences in (by_pieces, at_once):
        missing = cuts(one_by_one) ^ cuts(sentences)
        # Only sentences that share a breath have no cut between them.
        ends = [0, *accumulate(len(letters(sentence)) for sentence in one_by_one)]
        for at in missing:
            assert at in cuts(one_by_one)
            assert at - ends[ends.index(at) - 1] <= 2 * SHORT_BREATH
        assert sentences[:1] == [] or letters(sentences[0]) == letters(one_by_one[0])


@given(st.text(max_size=400), st.integers(1, 50))
def test_any_text_is_cut_into_sentences_of_bounded_length(text: str, piece: int) -> None:
    sentences = split(text, piece)
    assert letters("".join(sentences)) == letters(text)
    assert all(len(sentence) <= MAX_SENTENCE for sentence in sentences)
    assert cuts(sentences) <= cuts(split(text)) | {len(letters(text))}


HOSTILE = ["!", "a!", ".", "a.", "U.S. ", "p.m. I", '"', 'a"!', "(a!", "*a!", "[a", "`a.", "|a.\n", "…", ",", "a, ",
           "::", "&a;", "   ", "\n", "-\n", "😊\n", "“a。", "a.\"a", "_a!", "'a!", "https://a?", "```a\n"]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_takes_no_longer_than_its_length_warrants(unit: str) -> None:
    text = unit * (50_000 // len(unit))
    for piece in (3, len(text)):
        began = time.thread_time()
        split(text, piece)
        assert time.thread_time() - began < 10  # a tenth of a second is usual
