"""Plugins are found in the package and in a folder; a broken one is reported and skipped."""

from __future__ import annotations

import sys
from pathlib import Path

from mynah.tools.loader import load_plugins

BUILT_IN = {
    "get_time", "get_date", "calculate", "convert_unit", "set_timer", "set_reminder", "list_timers", "cancel_timer",
    "tell_joke", "small_talk", "show_help", "flip_coin", "roll_dice", "random_number", "end_conversation",
}  # fmt: skip

GOOD = '''
from mynah.tools.base import register_function, ToolContext
from mynah.tools.plugins.clock import get_time as imported

@register_function("{name}")
def f(location: str) -> str:
    """Weather."""
    return location
'''


def test_built_in_plugins_load_without_a_folder() -> None:
    found = load_plugins()
    assert {tool.spec.name for tool in found.functions} == BUILT_IN
    assert found.faults == ()
    for tool in found.functions:
        assert tool.spec.description
        for schema in tool.spec.parameters["properties"].values():
            assert schema["description"]


def test_a_folder_of_plugins(tmp_path: Path) -> None:
    (tmp_path / "weather.py").write_text(GOOD.format(name="get_weather"))
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(GOOD.format(name="packaged"))
    (tmp_path / "_private.py").write_text("raise ValueError")
    (tmp_path / "notes.txt").write_text("not Python")
    found = load_plugins(tmp_path)
    assert [tool.spec.name for tool in found.functions[len(BUILT_IN) :]] == ["packaged", "get_weather"]
    assert found.faults == ()


def test_broken_files_are_reported_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "a_syntax.py").write_text("def (:\n")
    (tmp_path / "b_import.py").write_text("import no_such_module_anywhere")
    (tmp_path / "c_exit.py").write_text("import sys\nsys.exit(3)")
    (tmp_path / "d_signature.py").write_text(
        "from mynah.tools.base import register_function\n@register_function()\ndef f(*a: int) -> str: ..."
    )
    (tmp_path / "e_good.py").write_text(GOOD.format(name="good"))
    found = load_plugins(tmp_path)
    assert [Path(fault.file).name for fault in found.faults] == [
        "a_syntax.py", "b_import.py", "c_exit.py", "d_signature.py",
    ]  # fmt: skip
    reasons = [fault.reason for fault in found.faults]
    assert "SyntaxError" in reasons[0]
    assert "no_such_module_anywhere" in reasons[1]
    assert "line 1" in reasons[1]
    assert "SystemExit" in reasons[2]
    assert "cannot be filled in by name" in reasons[3]
    assert all("\n" not in reason for reason in reasons)
    assert found.functions[-1].spec.name == "good"
    assert "mynah_plugins_c_exit" not in sys.modules


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    found = load_plugins(tmp_path / "nowhere")
    assert found.faults[0].reason == "there is no such folder"
    assert len(found.functions) == len(BUILT_IN)
