"""Tools of what only some boards have: lights, a battery, a robot body. With all of them the list takes two pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mynah.sim.mcp_tool import Result, Run, Tool

_BYTE = {"type": "integer", "minimum": 0, "maximum": 255}
_INDEX = {"type": "integer", "minimum": 0, "maximum": 11}
_STEPS = {"type": "integer", "default": 3, "minimum": 1, "maximum": 100}
_SPEED = {"type": "integer", "default": 1000, "minimum": 500, "maximum": 1500}
_DIRECTION = {"type": "integer", "default": 1, "minimum": -1, "maximum": 1}
_AMOUNT = {"type": "integer", "default": 30, "minimum": 0, "maximum": 170}
_COLOUR = {"red": _BYTE, "green": _BYTE, "blue": _BYTE}
_GAIT = {"steps": _STEPS, "speed": _SPEED, "direction": _DIRECTION}
_SWING = {**_GAIT, "amount": _AMOUNT}

Listing = tuple[str, str, dict[str, dict[str, Any]]]

_SET: tuple[Listing, ...] = (
    (
        "self.set_press_to_talk",
        "Switch between press to talk mode (`long press`) and click to talk mode (`click`).\n"
        "Call it when the user complains that the device interrupts, or wants to hold the button while speaking.",
        {"mode": {"type": "string"}},
    ),
    (
        "self.system.reconfigure_wifi",
        "Reboot the device and enter WiFi configuration mode. You must ask the user to confirm this action, "
        "because the conversation ends and the device is offline until a new network has been chosen.",
        {},
    ),
    (
        "self.disp.network",
        "重新配网。当用户要求切换网络、更换 WiFi 或在 4G 与 WiFi 之间切换时调用，执行前必须先征得用户同意。",
        {},
    ),
    (
        "self.lamp.turn_on",
        "Turn on the lamp that is connected to the board. It stays on until it is turned off or the power fails.",
        {},
    ),
    (
        "self.lamp.turn_off",
        "Turn off the lamp that is connected to the board. Does nothing when the lamp is off already.",
        {},
    ),
    (
        "self.led_strip.set_brightness",
        "Set the brightness of the led strip (0-8). All effects that are running take over the new brightness at "
        "their next frame, and it is kept in flash for the next start.",
        {"level": {"type": "integer", "minimum": 0, "maximum": 8}},
    ),
    (
        "self.led_strip.set_single_color",
        "Set the color of a single led. Leds are counted from 0 at the side of the connector, clockwise; the others "
        "keep the color that they have.",
        {"index": _INDEX, **_COLOUR},
    ),
    (
        "self.led_strip.set_all_color",
        "Set the color of all leds at once and end any effect that is running.",
        _COLOUR,
    ),
    (
        "self.led_strip.blink",
        "Blink the led strip. (闪烁) The interval is the time between on and off in milliseconds.",
        {**_COLOUR, "interval": {"type": "integer", "minimum": 50, "maximum": 1000}},
    ),
    (
        "self.led_strip.scroll",
        "Scroll the led strip. (跑马灯) A run of `length` leds moves round the strip, one led per `interval` "
        "milliseconds, on a dark background.",
        {
            **_COLOUR,
            "length": {"type": "integer", "minimum": 1, "maximum": 7},
            "interval": {"type": "integer", "minimum": 50, "maximum": 1000},
        },
    ),
    (
        "self.robot.walk_forward",
        "行走。steps: 行走步数(1-100); speed: 行走速度(500-1500，数值越小越快); direction: 行走方向(-1=后退, 1=前进); "
        "arm_swing: 手臂摆动幅度(0-170度)",
        {**_GAIT, "arm_swing": _AMOUNT},
    ),
    (
        "self.robot.turn_left",
        "转身。steps: 转身步数(1-100); speed: 转身速度(500-1500，数值越小越快); direction: 转身方向(1=左转, -1=右转); "
        "arm_swing: 手臂摆动幅度(0-170度)",
        {**_GAIT, "arm_swing": _AMOUNT},
    ),
    (
        "self.robot.jump",
        "跳跃。steps: 跳跃次数(1-100); speed: 跳跃速度(500-1500，数值越小越快)。跳跃前请确认机器人站在平整的桌面上。",
        {"steps": _STEPS, "speed": _SPEED},
    ),
    (
        "self.robot.swing",
        "左右摇摆。steps: 摇摆次数(1-100); speed: 摇摆速度(500-1500，数值越小越快); amount: 摇摆幅度(0-170度)",
        {"steps": _STEPS, "speed": _SPEED, "amount": _AMOUNT},
    ),
    (
        "self.robot.moonwalk",
        "太空步。steps: 太空步步数(1-100); speed: 速度(500-1500，数值越小越快); direction: 方向(1=左, -1=右); "
        "amount: 幅度(0-170度)",
        _SWING,
    ),
    (
        "self.robot.bend",
        "弯曲身体。steps: 弯曲次数(1-100); speed: 弯曲速度(500-1500，数值越小越快); direction: 弯曲方向(1=左, -1=右)",
        _GAIT,
    ),
    (
        "self.robot.shake_leg",
        "摇腿。steps: 摇腿次数(1-100); speed: 摇腿速度(500-1500，数值越小越快); direction: 腿部选择(1=左腿, -1=右腿)",
        _GAIT,
    ),
    (
        "self.robot.hands_up",
        "举手。speed: 举手速度(500-1500，数值越小越快); direction: 手部选择(1=左手, -1=右手, 0=双手)",
        {"speed": _SPEED, "direction": _DIRECTION},
    ),
    (
        "self.robot.hand_wave",
        "挥手。speed: 挥手速度(500-1500，数值越小越快); direction: 手部选择(1=左手, -1=右手, 0=双手)",
        {"speed": _SPEED, "direction": _DIRECTION},
    ),
    (
        "self.robot.set_trim",
        "校准单个舵机位置。设置指定舵机的微调参数以调整机器人的初始站立姿态，设置将永久保存。servo_type: 舵机类型"
        "(left_leg/right_leg/left_foot/right_foot/left_hand/right_hand); trim_value: 微调值(-50到50度)",
        {"servo_type": {"type": "string"}, "trim_value": {"type": "integer", "minimum": -50, "maximum": 50}},
    ),
    (
        "self.robot.stop",
        "立即停止所有动作并复位。当用户要求停下、别动，或者机器人可能从桌上掉下来的时候，不需要确认，马上调用。",
        {},
    ),
    (
        "self.robot.follow_sound",
        "Turn the head towards whoever speaks, or stop doing so. The choice is forgotten at the next start.",
        {"enabled": {"type": "boolean"}},
    ),
)
"""Name, description and properties of tools that set something."""

_BATTERY_PERCENT = 80


def part_tools(state: dict[str, bool | int | str]) -> list[Tool]:
    """Return the tools. What they set goes to ``state`` under their names: their arguments, in order."""

    def setter(name: str) -> Run:
        def run(arguments: Mapping[str, Any]) -> Result:
            state[name] = " ".join(str(value) for value in arguments.values()) or True
            return True

        return run

    tools = [Tool(name, description, setter(name), properties) for name, description, properties in _SET]
    return [
        *tools,
        Tool(
            "self.battery.get_level",
            "获取机器人电池电量和充电状态。返回电量百分比，低于百分之二十时请提醒用户充电。",
            lambda _arguments: _BATTERY_PERCENT,
        ),
    ]
