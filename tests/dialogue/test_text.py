"""Sentence splitting in Chinese, English and both, whatever the pieces the text arrives in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue.text import MAX_SENTENCE, SentenceSplitter, is_speakable, shown, spoken


def split(text: str, piece: int = 3) -> list[str]:
    splitter = SentenceSplitter()
    sentences = []
    for start in range(0, len(text), piece):
        sentences += splitter.feed(text[start : start + piece])
    return sentences + splitter.flush()


CASES = {
    "Sure, I can help. It is sunny. Bye": ["Sure,", "I can help.", "It is sunny.", "Bye"],
    "Pi is 3.14 today. Good.": ["Pi is 3.14 today.", "Good."],
    "Dr. Smith met Mr. J. Brown, e.g. on Monday. Fine.": [
        "Dr. Smith met Mr. J. Brown,",
        "e.g. on Monday.",
        "Fine.",
    ],
    "It costs $1,000.50 now. Wow!": ["It costs $1,000.50 now.", "Wow!"],
    "See www.example.com/a?b=c for more. Done.": ["See www.example.com/a?b=c for more.", "Done."],
    "He came at 10:30 a.m. and left. Then she came at 5 p.m. She stayed.": [
        "He came at 10:30 a.m. and left.",
        "Then she came at 5 p.m.",
        "She stayed.",
    ],
    "I said no. He said no. 5 is alive.": ["I said no.", "He said no. 5 is alive."],
    "Well, really?! Yes... I think so. ok": ["Well,", "really?!", "Yes...", "I think so.", "ok"],
    '"I see." She left.': ['"I see."', "She left."],
    "1. First\n2. Second": ["1. First", "2. Second"],
    "你好，我是小智。今天天气不错！价格是3.5元，对吗？": [
        "你好，",
        "我是小智。",
        "今天天气不错！",
        "价格是3.5元，对吗？",
    ],
    "“好的。”他说。": ["“好的。”", "他说。"],
    "我喜欢 Python 3.11。It is fast. 对吧？": ["我喜欢 Python 3.11。", "It is fast.", "对吧？"],
    "嗯…好吧": ["嗯…", "好吧"],
    "": [],
    "…！。": [],
}


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
def test_sentences(text: str, piece: int) -> None:
    assert split(text, piece) == CASES[text]


def test_first_clause_leaves_before_the_sentence_is_over() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("Of course,") == ["Of course,"]
    assert splitter.feed(" a, b, c") == []
    assert splitter.feed(" and d! E") == ["a, b, c and d!"]


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
        assert all(
            len(sentence) <= MAX_SENTENCE + 1 for sentence in sentences
        )  # and the quote that closes it
        assert sum(map(str.isalnum, "".join(sentences))) == sum(map(str.isalnum, text))


@given(st.text(alphabet='ab1 .,!?。，”"\n：3', max_size=80), st.integers(1, 7))
def test_nothing_speakable_is_lost(text: str, piece: int) -> None:
    kept = "".join(char for sentence in split(text, piece) for char in sentence if char.isalnum())
    assert kept == "".join(char for char in text if char.isalnum())


def test_spoken_and_shown() -> None:
    assert spoken("**Hi** 😊 see [docs](http://x.y/z), https://www.foo.com/a?b `code` snake_case 2*3") == (
        "Hi see docs, foo.com code snake_case 2*3"
    )
    assert spoken("# Title\n- item one\n> quote") == "Title item one quote"
    assert shown("好的😊\n你好") == "好的 你好"
    assert not is_speakable("😊 …")
