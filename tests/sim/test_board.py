from mynah.sim.board import Board
from mynah.sim.board_parts import part_tools
from mynah.sim.discovery import DeviceIdentity


def test_the_tools_come_in_the_order_of_firmware() -> None:
    tools = Board(DeviceIdentity()).tools(full=True)
    names = [tool.name for tool in tools]
    assert len(names) == len(set(names))
    assert names[:5] == [
        "self.get_device_status",
        "self.audio_speaker.set_volume",
        "self.screen.set_brightness",
        "self.screen.set_theme",
        "self.camera.take_photo",
    ]
    first = names.index("self.reboot")
    assert [tool.user_only for tool in tools] == [False] * first + [True] * (len(tools) - first)
    assert set(names[first:]) >= {"self.get_system_info", "self.upgrade_firmware", "self.screen.snapshot"}


def test_a_board_with_nothing_but_a_camera() -> None:
    bare = [tool.name for tool in Board(DeviceIdentity()).tools()]
    assert "self.camera.take_photo" not in bare
    seeing = [tool.name for tool in Board(DeviceIdentity(), photo=b"jpeg").tools()]
    assert seeing == [*bare[:-1], "self.camera.take_photo", bare[-1]]


def test_tools_for_the_user() -> None:
    board = Board(DeviceIdentity("02:aa:00:00:00:01"))
    tools = {tool.name: tool for tool in board.tools(full=True)}
    info = tools["self.get_system_info"].run({})
    assert isinstance(info, str)
    assert '"mac_address":"02:aa:00:00:00:01"' in info
    assert tools["self.screen.get_info"].run({}) == {"width": 240, "height": 240, "monochrome": False}
    upgrade = tools["self.upgrade_firmware"]
    assert "required" not in upgrade.as_json()["inputSchema"]
    assert upgrade.run(upgrade.arguments({"url": "http://h/f.bin"})) is True
    assert board.settings.firmware_url == "http://h/f.bin"
    tools["self.assets.set_download_url"].run({"url": "http://h/a.bin"})
    assert board.settings.assets_url == "http://h/a.bin"


def test_parts_of_a_board_keep_what_they_are_told() -> None:
    state: dict[str, bool | int | str] = {}
    tools = {tool.name: tool for tool in part_tools(state)}
    assert tools["self.battery.get_level"].run({}) == 80
    assert tools["self.lamp.turn_on"].run({}) is True
    colour = tools["self.led_strip.set_all_color"]
    colour.run(colour.arguments({"red": 1, "green": 2, "blue": 3}))
    assert state == {"self.lamp.turn_on": True, "self.led_strip.set_all_color": "1 2 3"}
