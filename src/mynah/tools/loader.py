"""Find plugins: Python files whose functions carry ``@register_function``."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import msgspec

from mynah.tools import plugins as built_in
from mynah.tools.base import FunctionTool, registered_tool
from mynah.tools.guard import contained


class PluginFault(msgspec.Struct, frozen=True):
    """A plugin that could not be used, and why, in one line."""

    file: str
    reason: str


class Plugins(msgspec.Struct, frozen=True):
    """What was found. Where two functions have the same name, the later one counts."""

    functions: tuple[FunctionTool, ...]
    faults: tuple[PluginFault, ...] = ()


def load_plugins(plugins_dir: Path | None = None) -> Plugins:
    """Load the built-in plugins, then those in ``plugins_dir``: its ``*.py`` files and packages, by name.

    Names that begin with ``_`` or ``.`` are left out. A file that cannot be loaded is reported and skipped.
    """
    functions: list[FunctionTool] = []
    faults: list[PluginFault] = []

    def load(name: str, file: Path | None) -> None:
        shown = str(file or name)
        with contained(lambda error: faults.append(PluginFault(shown, _reason(error)))):
            module = importlib.import_module(name) if file is None else _import_file(name, file)
            functions.extend(_functions_of(module))

    for found in pkgutil.iter_modules(built_in.__path__):
        load(f"{built_in.__name__}.{found.name}", None)
    if plugins_dir is not None:
        if not plugins_dir.is_dir():
            faults.append(PluginFault(str(plugins_dir), "there is no such folder"))
        else:
            for file in sorted(plugins_dir.iterdir()):
                if _is_plugin(file):
                    load(f"mynah_plugins_{file.stem}", file)
    return Plugins(tuple(functions), tuple(faults))


def _is_plugin(path: Path) -> bool:
    if path.name.startswith(("_", ".")):
        return False
    return path.suffix == ".py" or (path / "__init__.py").is_file()


def _import_file(name: str, path: Path) -> ModuleType:
    source = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise ImportError(f"{source} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses, enums and relative imports look their module up by name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _functions_of(module: ModuleType) -> list[FunctionTool]:
    """Return the tools written in ``module`` itself, not those it imported."""
    found: list[FunctionTool] = []
    for value in vars(module).values():
        tool = registered_tool(value)
        if tool is not None and value.__module__ == module.__name__:
            found.append(tool)
    return found


def _reason(error: BaseException) -> str:
    where = ""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is not None and not isinstance(error, SyntaxError):  # which names its own line
        where = f" ({Path(frame.tb_frame.f_code.co_filename).name} line {frame.tb_lineno})"
    return f"{type(error).__name__}: {error}{where}"
