"""What people say, in English and Chinese, and what they hear: each row goes through the responder and real tools.

A row is (what is said, the tool that is called last, what is answered). An answer beginning with ``@`` names a text
of the catalogue, any of whose sentences will do; one beginning with ``~`` is a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest

from mynah.texts import variants
from tests.providers.builtin_talk import Talk

SET_VOLUME, SET_BRIGHTNESS = "self_audio_speaker_set_volume", "self_screen_set_brightness"

ENGLISH = [
    ("What time is it?", "get_time", "It is 3:05 PM."),
    ("can you tell me the time please", "get_time", "It is 3:05 PM."),
    ("what's today's date", "get_date", "Today is Saturday, November 21, 2026."),
    ("What day is it tomorrow?", "get_date", "Tomorrow is Sunday, November 22, 2026."),
    ("what day was yesterday", "get_date", "Yesterday was Friday, November 20, 2026."),
    ("what is the date the day after tomorrow", "get_date", "The day after tomorrow is Monday, November 23, 2026."),
    ("what is twelve times seven", "calculate", "12 times 7 is 84."),
    ("What's 105 - 38?", "calculate", "105 minus 38 is 67."),
    ("how much is ninety six divided by eight", "calculate", "96 divided by 8 is 12."),
    ("calculate forty five plus seventeen", "calculate", "45 plus 17 is 62."),
    ("what is fifteen percent of eighty", "calculate", "15 percent of 80 is 12."),
    ("square root of 2", "calculate", "The square root of 2 is about 1.4142."),
    ("what is seven squared", "calculate", "7 squared is 49."),
    ("divide ten by zero", "calculate", "You cannot divide by zero."),
    ("what is 3 + 4 * 2", "calculate", "3 plus 4 times 2 is 11."),
    ("convert ten kilometers to miles", "convert_unit", "10 kilometers is about 6.21 miles."),
    ("how many ounces are in a pound", "convert_unit", "1 pound is 16 ounces."),
    ("what is seventy degrees fahrenheit in celsius", "convert_unit",
     "70 degrees Fahrenheit is about 21.1 degrees Celsius."),
    ("12 km in miles", "convert_unit", "12 kilometers is about 7.46 miles."),
    ("how many seconds are in half an hour", "convert_unit", "0.5 hours is 1,800 seconds."),
    ("convert 3 kilograms to meters", "convert_unit", "Kilograms cannot be converted to meters."),
    ("set a timer for ten minutes", "set_timer", "All right, 10 minutes from now."),
    ("please start a thirty second timer", "set_timer", "All right, 30 seconds from now."),
    ("set a timer for an hour and a half", "set_timer", "All right, 1 hour and 30 minutes from now."),
    ("set a pasta timer for eight minutes", "set_timer", "All right, the pasta timer is set: 8 minutes from now."),
    ("set a timer for forty eight hours", "set_timer", "A timer can run from one second to twenty-four hours."),
    ("remind me to take a break in half an hour", "set_reminder",
     "All right, I will remind you in 30 minutes: take a break."),
    ("remind me in 2 hours to water my neighbour's roses", "set_reminder",
     "All right, I will remind you in 2 hours: water my neighbour's roses."),
    ("what timers are running", "list_timers", "No timer is running."),
    ("cancel the timer", "cancel_timer", "No timer is running."),
    ("cancel the egg timer", "cancel_timer", "There is no timer called egg."),
    ("tell me a joke", "tell_joke", "@joke"),
    ("make me laugh", "tell_joke", "@joke"),
    ("flip a coin", "flip_coin", "~Heads!|Tails!"),
    ("roll the dice", "roll_dice", "~You rolled a [1-6]\\."),
    ("roll a twenty sided die", "roll_dice", "~You rolled a (1?[1-9]|10|20)\\."),
    ("pick a number between one and three", "random_number", "~My number is [123]\\."),
    ("set the volume to sixty percent", SET_VOLUME, "The volume is now 60 percent."),
    ("set the brightness to forty", SET_BRIGHTNESS, "The brightness is now 40 percent."),
    ("turn up the volume", SET_VOLUME, "The volume is now 80 percent."),
    ("how much battery is left", "self_get_device_status", "The battery is at 80 percent."),
    ("what can you do", "show_help", "@help"),
    ("help", "show_help", "@help"),
    ("hello there", "small_talk", "@smalltalk_greeting"),
    ("good morning", "small_talk", "@smalltalk_good_morning"),
    ("how are you today", "small_talk", "@smalltalk_how_are_you"),
    ("What's your name?", "small_talk", "@smalltalk_your_name"),
    ("who made you", "small_talk", "@smalltalk_who_made_you"),
    ("thank you very much", "small_talk", "@smalltalk_thanks"),
    ("tell me a bedtime story", "small_talk", "@smalltalk_story"),
    ("tell me a fun fact", "small_talk", "@smalltalk_fun_fact"),
    ("what's the weather like today", "small_talk", "@smalltalk_weather_unknown"),
    ("you are stupid", "small_talk", "@smalltalk_insult"),
    ("I'm bored", "small_talk", "@smalltalk_bored"),
    ("good night", "small_talk", "@smalltalk_goodnight"),
    ("goodbye", "end_conversation", "@farewell"),
    ("see you later", "end_conversation", "@farewell"),
    ("what is the capital of France", "", "@no_model"),
    ("order some milk and bread from the store", "", "@no_model"),
    ("why is the sky blue", "", "@no_model"),
]  # fmt: skip

CHINESE = [
    ("现在几点了？", "get_time", "现在是下午三点零五分。"),
    ("请问现在是什么时间", "get_time", "现在是下午三点零五分。"),
    ("今天几号", "get_date", "今天是2026年11月21日，星期六。"),
    ("今天星期几呀", "get_date", "今天是2026年11月21日，星期六。"),
    ("明天是星期几", "get_date", "明天是2026年11月22日，星期日。"),
    ("昨天是几月几号", "get_date", "昨天是2026年11月20日，星期五。"),
    ("后天是什么日子", "get_date", "后天是2026年11月23日，星期一。"),
    ("三加五等于几", "calculate", "3加5等于8。"),
    ("十二乘以七是多少？", "calculate", "12乘以7等于84。"),
    ("帮我算一下一百零五减三十八", "calculate", "105减38等于67。"),
    ("100除以4", "calculate", "100除以4等于25。"),
    ("2的10次方是多少", "calculate", "2的10次方等于1024。"),
    ("根号二等于多少", "calculate", "2的平方根约等于1.4142。"),
    ("九的平方", "calculate", "9的平方等于81。"),
    ("200的百分之十五是多少", "calculate", "200的百分之15等于30。"),
    ("十除以零", "calculate", "不能除以零。"),
    ("五公里是多少英里", "convert_unit", "5公里约等于3.11英里。"),
    ("一斤等于多少克", "convert_unit", "1斤等于500克。"),
    ("37摄氏度等于多少华氏度", "convert_unit", "37摄氏度等于98.6华氏度。"),
    ("摄氏37度是多少华氏度", "convert_unit", "37摄氏度等于98.6华氏度。"),
    ("100度是多少摄氏度", "convert_unit", "100华氏度约等于37.8摄氏度。"),
    ("把十英寸换算成厘米", "convert_unit", "10英寸等于25.4厘米。"),
    ("一小时有多少秒", "convert_unit", "1小时等于3600秒。"),
    ("两公斤等于几斤", "convert_unit", "2公斤等于4斤。"),
    ("设一个五分钟的定时器", "set_timer", "好的，5分钟后叫你。"),
    ("五分钟后叫我", "set_timer", "好的，5分钟后叫你。"),
    ("定时十分钟", "set_timer", "好的，10分钟后叫你。"),
    ("帮我设个半小时的闹钟", "set_timer", "好的，30分钟后叫你。"),
    ("倒计时三十秒", "set_timer", "好的，30秒后叫你。"),
    ("设一个八分钟的面条定时器", "set_timer", "好的，面条定时器已设好，8分钟后叫你。"),
    ("十分钟后提醒我喝水", "set_reminder", "好的，10分钟后提醒你：喝水。"),
    ("一个半小时以后提醒我去开会", "set_reminder", "好的，1小时30分钟后提醒你：开会。"),
    ("提醒我两小时后给妈妈打电话", "set_reminder", "好的，2小时后提醒你：给妈妈打电话。"),
    ("有哪些定时器", "list_timers", "现在没有定时器。"),
    ("取消所有定时器", "cancel_timer", "现在没有定时器。"),
    ("取消鸡蛋的定时器", "cancel_timer", "没有叫鸡蛋的定时器。"),
    ("讲个笑话", "tell_joke", "@joke"),
    ("给我讲一个好笑的笑话吧", "tell_joke", "@joke"),
    ("抛个硬币", "flip_coin", "~正面！|反面！"),
    ("掷骰子", "roll_dice", "~你掷出了[1-6]点。"),
    ("掷一个二十面的骰子", "roll_dice", "~你掷出了(1?[1-9]|10|20)点。"),
    ("从1到3选一个数", "random_number", "~我选的数是[123]。"),
    ("给我一个随机数", "random_number", "~我选的数是\\d+。"),
    ("音量调到五十", SET_VOLUME, "音量已调到百分之50。"),
    ("声音大一点", SET_VOLUME, "音量已调到百分之80。"),
    ("亮度调到百分之八十", SET_BRIGHTNESS, "亮度已调到百分之80。"),
    ("把屏幕调暗一点", SET_BRIGHTNESS, "亮度已调到百分之65。"),
    ("还有多少电", "self_get_device_status", "电量是百分之80。"),
    ("你会做什么？", "show_help", "@help"),
    ("帮助", "show_help", "@help"),
    ("你好", "small_talk", "@smalltalk_greeting"),
    ("早上好", "small_talk", "@smalltalk_good_morning"),
    ("你最近怎么样", "small_talk", "@smalltalk_how_are_you"),
    ("你叫什么名字", "small_talk", "@smalltalk_your_name"),
    ("是谁创造了你", "small_talk", "@smalltalk_who_made_you"),
    ("谢谢你", "small_talk", "@smalltalk_thanks"),
    ("讲个睡前故事", "small_talk", "@smalltalk_story"),
    ("讲个冷知识", "small_talk", "@smalltalk_fun_fact"),
    ("今天天气怎么样", "small_talk", "@smalltalk_weather_unknown"),
    ("明天会不会下雨", "small_talk", "@smalltalk_weather_unknown"),
    ("我好无聊啊", "small_talk", "@smalltalk_bored"),
    ("晚安", "small_talk", "@smalltalk_goodnight"),
    ("再见", "end_conversation", "@farewell"),
    ("世界上最高的山是什么", "", "@no_model"),
    ("帮我写一首关于春天的诗", "", "@no_model"),
    ("给我的老板发一封邮件", "", "@no_model"),
]  # fmt: skip


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    conversation = Talk()
    await conversation.connect()
    yield conversation
    conversation.agenda.close()


def fits(answer: str, expected: str, language: str) -> bool:
    if expected.startswith("@"):
        return answer in variants(expected[1:], language)
    if expected.startswith("~"):
        return re.fullmatch(expected[1:], answer) is not None
    return answer == expected


@pytest.mark.parametrize(("said", "tool", "expected"), ENGLISH)
async def test_english(talk: Talk, said: str, tool: str, expected: str) -> None:
    answer = await talk.say(said, "en")
    assert fits(answer, expected, "en"), answer
    assert (talk.called[-1].name if talk.called else "") == tool


@pytest.mark.parametrize(("said", "tool", "expected"), CHINESE)
async def test_chinese(talk: Talk, said: str, tool: str, expected: str) -> None:
    answer = await talk.say(said, "zh")
    assert fits(answer, expected, "zh"), answer
    assert (talk.called[-1].name if talk.called else "") == tool


async def test_the_tables_are_long_enough() -> None:
    assert min(len(ENGLISH), len(CHINESE)) >= 40


async def test_one_long_english_conversation(talk: Talk) -> None:
    await talk.say("set a tea timer for three minutes")
    await talk.say("set a timer for ten minutes")
    await talk.say("remind me in one hour to call home")
    assert await talk.say("what timers are running") == (
        "3 timers are running: tea, 3 minutes left; 10 minutes left; call home, 1 hour left."
    )
    assert await talk.say("cancel the tea timer") == "The tea timer is cancelled."
    assert await talk.say("what is the capital of France") in variants("no_model", "en")
    assert await talk.say("what is the capital of Spain") in variants("no_model_short", "en")
    assert await talk.say("cancel all timers") == "All 2 timers are cancelled."
    assert await talk.say("thanks") in variants("smalltalk_thanks", "en")
    assert await talk.say("bye bye") in variants("farewell", "en")
    assert talk.ended


async def test_one_long_chinese_conversation(talk: Talk) -> None:
    await talk.say("五分钟后提醒我关火")
    assert await talk.say("有什么提醒") == "有一个定时器：关火，还剩5分钟。"
    assert await talk.say("取消关火的提醒") == "关火定时器已取消。"
    first = await talk.say("讲个笑话")
    assert await talk.say("再来一个") != first
    assert await talk.say("what time is it") == "It is 3:05 PM."
    assert (await talk.say("今天几号")).startswith("今天是")
    assert (await talk.say("那明天呢")).startswith("明天是")
    assert await talk.say("拜拜") in variants("farewell", "zh")
    assert talk.ended
