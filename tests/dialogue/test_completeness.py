"""Whether words sound finished, in both languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah.dialogue import completeness
from mynah.dialogue.completeness import MAX_CHARACTERS, Completeness, judge
from mynah.errors import ConfigError

C, U, I = Completeness.COMPLETE, Completeness.UNSURE, Completeness.INCOMPLETE  # noqa: E741

ENGLISH = [
    # conjunctions, articles, prepositions
    ("turn on the", I),
    ("turn on the lights in the", I),
    ("i would like a coffee and", I),
    ("i am calling because", I),
    ("play something by", I),
    ("what is the weather in", I),
    ("remind me to", I),
    ("it is bigger than", I),
    ("i want tea with", I),
    ("show me my", I),
    ("he said that if", I),
    # verbs that want an object, beginnings
    ("can you", I),
    ("can you please", I),
    ("hey could you", I),
    ("i want", I),
    ("i'd like", I),
    ("please turn on", I),
    ("okay so", I),
    ("what", U),
    ("what is", I),
    ("where's", I),
    ("tell me", I),
    ("play", I),
    ("please set an alarm", I),
    ("i don't think it is", I),
    # thinking
    ("um", I),
    ("turn on the light um", I),
    ("the name of the song is uh", I),
    ("i need to buy some milk er", I),
    ("play let me see", I),
    # numbers
    ("one two three", I),
    ("my phone number is five five five", I),
    ("my phone number is 555", I),
    ("call 5 5 5 1 2", I),
    ("my phone number is five five five one two three four", U),
    ("the number is 2 1 2 5 5 5 1 2 3 4", C),
    ("my number is 2125551234", C),
    ("set the volume to twenty", U),
    ("turn on light number five", U),
    ("what is twelve times", I),
    ("what is three point", I),
    ("what is fifteen plus", I),
    ("set the volume to sixty percent", U),
    ("call 911", C),
    # spelling and addresses
    ("her name is m i c h", I),
    ("spell it b e", I),
    ("b e", U),
    ("send it to bob at", I),
    ("send it to bob at gmail", I),
    ("send it to bob at gmail dot", I),
    ("send it to bob at gmail dot com", C),
    ("switch on the t v", C),
    # times
    ("wake me up at", I),
    ("wake me up at seven", U),
    ("wake me up at seven o'clock", C),
    ("wake me up at seven a m", C),
    # questions may end in a preposition or a verb
    ("who are you talking to", U),
    ("what is it made of", U),
    ("where do you come from", U),
    ("tell me what time it is", U),
    ("i want to talk to", I),
    ("i know what it is", U),
    # ordinary sentences
    ("turn on the light", U),
    ("what is the weather like tomorrow", U),
    ("what time is it", C),
    ("stop", C),
    ("please stop", C),
    ("yes", C),
    ("no thank you", C),
    ("set a timer for ten minutes please", C),
    ("tell me a joke", U),
    ("how are you", C),
    ("i do it once in a while", U),
    ("turn it on", C),
    ("good night", C),
    # marks
    ("Turn on the light,", I),
    ("Turn on the light…", I),
    ("turn on the light...", I),
    ("Turn on the light -", I),
    ("Turn on the light.", C),
    ("Is it raining?", C),
    ("Turn on the.", I),
    ("I said “stop!”", C),
    ("Yes, I’d like", I),
    ("...", I),
    ("?", U),
    ("", U),
    ("   ", U),
]

CHINESE = [
    # 连词、介词、助词
    ("把", I),
    ("把客厅的", I),
    ("把空调的温度调到", I),
    ("因为", I),
    ("今天下雨所以", I),
    ("如果明天天气好的话", I),
    ("我喜欢苹果和", I),
    ("我不能去了但是", I),
    ("从北京到", I),
    ("打电话给", I),
    ("提醒我在", I),
    ("我想看一个", I),
    ("播放一首", I),
    ("今天非常", I),
    ("请告诉我明天的", I),
    ("当我回家的时候", I),
    # 开头
    ("帮我", I),
    ("请帮我", I),
    ("我想", I),
    ("我想听", I),
    ("我想要", I),
    ("能不能", I),
    ("能不能帮我", I),
    ("请问", I),
    ("打开", I),
    ("请帮我打开", I),
    ("提醒我", I),
    ("明天早上", I),
    ("这首歌是不是", I),
    ("我的名字是", I),
    ("你知道", I),
    # 还在想
    ("嗯那个", I),
    ("我想问一下那个", I),
    ("打开客厅的灯然后", I),
    ("我要就是", I),
    ("北京到上海的火车票呃", I),
    # 数字
    ("我的电话号码是一三八", I),
    ("我的电话是138", I),
    ("电话号码是一三八零零一三八零零零", C),
    ("电话号码是13800138000", C),
    ("手机号一三八零零一三八", U),
    ("一二三", I),
    ("调到二十", U),
    ("三百五十乘以", I),
    ("百分之", I),
    ("星期一", U),
    ("拨打110", C),
    # 拼写
    ("我的邮箱是 m i", I),
    ("邮箱是 bob 艾特 gmail", U),
    ("邮箱是 bob 艾特", I),
    ("邮箱是 bob 艾特 gmail 点com", C),
    # 说完了
    ("你好吗", C),
    ("今天会下雨吗", C),
    ("苹果呢", C),
    ("我们去爬山吧", C),
    ("现在几点了", C),
    ("今天天气怎么样", C),
    ("谢谢", C),
    ("你叫什么名字", U),
    ("停", C),
    ("请停止", C),
    ("下一首", C),
    ("好的", C),
    ("嗯", C),
    ("不用了", C),
    ("附近有餐厅嗎", C),
    # 不一定
    ("把灯打开", U),
    ("打开客厅的灯", U),
    ("你是做什么的", U),
    ("这是我的", U),
    ("就要那个", U),
    ("我看到", U),
    ("讲一个故事", U),
    ("为什么", U),
    # 标点
    ("打开客厅的灯，", I),
    ("打开客厅的灯、", I),
    ("打开客厅的灯……", I),
    ("打开客厅的灯。", C),
    ("打开客厅的。", I),
    ("会下雨吗？", C),
    ("我想听。", I),
    # 混合
    ("播放 hello", U),
    ("用 english 说", U),
]


def test_the_tables_are_large_enough_to_mean_something() -> None:
    assert len(ENGLISH) >= 60
    assert len(CHINESE) >= 60


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_english(text: str, expected: Completeness) -> None:
    assert judge(text, "en") is expected


@pytest.mark.parametrize(("text", "expected"), CHINESE)
def test_chinese(text: str, expected: Completeness) -> None:
    assert judge(text, "zh-CN") is expected


def test_the_script_decides_which_rules_count() -> None:
    assert judge("帮我", "en") is I
    assert judge("turn on the", "zh") is I
    assert judge("turn on the", "en-US") is I
    assert judge("turn on the", "EN_gb") is I


def test_without_rules_for_a_language_the_marks_are_left() -> None:
    assert judge("schalte das licht und", "de") is U
    assert judge("schalte das licht ein.", "de") is C
    assert judge("schalte das licht,", "de") is I
    assert judge("turn on the", "../en") is U


def test_case_and_typographic_marks_do_not_matter() -> None:
    assert judge("TURN ON THE", "en") is I
    assert judge("What’s", "en") is I
    assert judge("ｔｕｒｎ　ｏｎ　ｔｈｅ", "en") is I


def test_only_the_end_of_a_long_text_is_looked_at() -> None:
    assert judge("word " * 100_000 + "and the", "en") is I
    assert len("word " * 100_000) > MAX_CHARACTERS


@given(st.text(max_size=80), st.sampled_from(["en", "zh", "", "de-AT"]))
def test_every_text_gets_a_verdict(text: str, language: str) -> None:
    assert judge(text, language) in Completeness


@given(st.sampled_from([text for text, _ in ENGLISH if text[-1:].isalnum()]))
def test_a_full_stop_never_completes_what_is_incomplete(text: str) -> None:
    """Some recognisers end everything with one."""
    without, with_mark = judge(text, "en"), judge(text + ".", "en")
    assert with_mark is (I if without is I else C)


@given(st.sampled_from([text for text, _ in ENGLISH + CHINESE if text[-1:].isalnum()]))
def test_a_comma_is_never_the_end(text: str) -> None:
    assert judge(text + ",") is I
    assert judge(text + "，") is I


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_ending_stands_in_two_lists(language: str) -> None:
    """The later list would win in silence."""
    import yaml

    source = completeness.resources.files("mynah.dialogue") / "data" / f"completeness.{language}.yaml"
    data = yaml.load(source.read_text(encoding="utf-8"), yaml.BaseLoader)
    endings = [
        tuple(completeness._TOKEN.findall(text))
        for kind in ("open", "closed", "unsure")
        for group in data[kind]
        for text in group
    ]
    assert sorted({ending for ending in endings if endings.count(ending) > 1}) == []
    assert () not in endings
    whole = [*data["open_whole"], *data["closed_whole"]]
    assert sorted({text for text in whole if whole.count(text) > 1}) == []


@pytest.mark.parametrize("source", ["- a list", "lead_ins: [a]", "{", "unknown: [a]"])
def test_a_broken_file_is_an_error_that_says_so(source: str) -> None:
    with pytest.raises(ConfigError, match="completeness rules"):
        completeness._parse(source)
