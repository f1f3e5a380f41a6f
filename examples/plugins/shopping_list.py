"""A plugin: a shopping list in a text file. Point `plugins.plugins_dir` at the folder of this file to use it."""

from __future__ import annotations

import threading
from pathlib import Path

from mynah.errors import ToolError
from mynah.tools.base import ToolContext, register_function

MAX_ITEMS = 100
"""More than anybody buys, and few enough to be read out."""

_lock = threading.Lock()  # plain functions run in worker threads, several at once


def _file(context: ToolContext) -> Path:
    """Return the file named in the section `plugins.<name of the tool>`."""
    return Path(context.settings.get("file", "data/shopping_list.txt"))


def _read(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines() if path.exists() else []


@register_function()
def add_to_shopping_list(context: ToolContext, item: str) -> str:
    """Put something on the shopping list.

    Args:
        item: what to buy, in the user's words, for example two bottles of milk
    """
    path = _file(context)
    with _lock:
        items = _read(path)
        if len(items) >= MAX_ITEMS:
            raise ToolError(f"the shopping list is full ({MAX_ITEMS} items)")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*items, " ".join(item.split())]) + "\n", "utf-8")
    return f"{item} is on the list" if context.language == "en" else f"已加入购物清单：{item}"


@register_function()
def read_shopping_list(context: ToolContext) -> str:
    """Say what is on the shopping list."""
    items = _read(_file(context))
    if context.language == "zh":
        return "购物清单：" + "、".join(items) if items else "购物清单是空的"
    return "On the list: " + ", ".join(items) if items else "The shopping list is empty"
