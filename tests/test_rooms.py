"""The rules of the rooms that no linter knows. `docs/architecture.md` says why each exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "mynah"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
MAX_FILE, MAX_FUNCTION, MAX_METHODS = 500, 60, 15
PURE_DIALOGUE = (
    "turn", "events", "commands", "endpointing", "patience", "completeness", "speculation", "delays",
    "admission", "text", "wording",
)  # fmt: skip
PURE = [
    *sorted((SOURCE / "wire").glob("*.py")),
    *(SOURCE / "dialogue" / f"{n}.py" for n in PURE_DIALOGUE),
]
NOT_PURE = {
    "asyncio",
    "time",
    "datetime",
    "loguru",
    "logging",
    "socket",
    "threading",
    "random",
    "aiohttp",
    "picows",
}
BROAD = re.compile(r"except\s+(\(.*\b)?(Exception|BaseException)\b|except\s*:")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_functions_and_classes_are_small(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_FILE, f"{lines} lines: something is in the wrong room"
    for function in functions(TREES[path]):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= MAX_FUNCTION, f"{function.name} has {length} lines"
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ClassDef):
            public = [item for item in node.body if isinstance(item, ast.FunctionDef) and item.name[0] != "_"]
            assert len(public) <= MAX_METHODS, f"{node.name} has {len(public)} public methods"


@pytest.mark.parametrize("path", PURE, ids=name)
def test_pure_rooms_have_no_clock_no_async_and_no_logger(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await), f"line {node.lineno}"
        imported = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        assert not NOT_PURE & {module.split(".")[0] for module in imported}


def test_broad_excepts_stand_in_three_places() -> None:
    """The task root, the plugin call and the provider wrapper; `BaseException` that is raised again does not count."""
    found = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            text = ast.unparse(node.type) if node.type is not None else "BaseException"
            raised = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in node.body)
            if {"Exception", "BaseException"} & set(re.findall(r"\w+", text)) and not raised:
                found.append(name(path))
    # The plugin call, `tools/guard.py`, is a context manager and needs no except at all.
    assert sorted(found) == ["src/mynah/dialogue/work.py", "src/mynah/providers/wrap.py"]


def test_no_room_for_everything() -> None:
    banned = {"utils", "util", "common", "helpers", "helper", "core", "misc"}
    assert not [name(path) for path in FILES if path.stem in banned or path.parent.name in banned]
    managers = [
        n.name
        for tree in TREES.values()
        for n in ast.walk(tree)
        if isinstance(n, ast.ClassDef) and "Manager" in n.name
    ]
    assert not managers


def test_tests_mirror_the_tree() -> None:
    """Tests of ``dialogue/turn.py`` are in ``tests/dialogue/test_turn*.py``; one may cover a family (``builtin_*``)."""
    missing = []
    for path in FILES:
        module = path.relative_to(SOURCE)
        if path.name == "__init__.py" or str(module) in COVERED_BY:
            continue
        room = ROOT / "tests" / (module.parts[0] if len(module.parts) > 1 else "")
        stems = [test.stem.removeprefix("test_") for test in room.rglob("test_*.py")]
        if not any(stem.startswith(path.stem) or path.stem.startswith(stem + "_") for stem in stems):
            missing.append(str(module))
    assert not missing, f"no tests for {missing}"
    assert all((SOURCE / module).exists() and (ROOT / test).exists() for module, test in COVERED_BY.items())


COVERED_BY = {
    "demo.py": "tests/e2e/test_conversation.py",
    "listing.py": "tests/test_cli.py",
    "errors.py": "tests/test_rooms.py",
    "bench/audio.py": "tests/bench/test_bench.py",
    "bench/pacing.py": "tests/bench/test_bench.py",
    "bench/report.py": "tests/bench/test_bench.py",
    "bench/sockets.py": "tests/bench/test_bench.py",
    "bench/turn.py": "tests/bench/test_bench.py",
    "config/layers.py": "tests/config/test_loading.py",
    "config/model.py": "tests/config/test_loading.py",
    "config/section.py": "tests/config/test_loading.py",
    "config/server.py": "tests/config/test_loading.py",
    "dialogue/talker.py": "tests/dialogue/test_session.py",
    "dialogue/work.py": "tests/dialogue/test_session.py",
    "engine.py": "tests/test_app.py",
    "dialogue/services.py": "tests/dialogue/test_session.py",
    "providers/base.py": "tests/providers/test_conformance.py",
    "providers/chat_api.py": "tests/providers/test_openai.py",
    "providers/faults.py": "tests/providers/test_fake.py",
    "providers/intent/function_call.py": "tests/providers/test_conformance.py",
    "providers/intent/nointent.py": "tests/providers/test_conformance.py",
    "providers/memory/nomem.py": "tests/providers/test_conformance.py",
    "providers/vad/energy.py": "tests/providers/test_vad_energy.py",
    "providers/vad/silero.py": "tests/providers/test_vad_silero.py",
    "tools/guard.py": "tests/tools/test_toolbox.py",
    "tools/plugins/conversation.py": "tests/tools/plugins/test_fun.py",
    "tools/plugins/help.py": "tests/tools/plugins/test_fun.py",
}
"""Modules whose tests stand elsewhere, and where."""


def test_every_error_has_a_code_of_its_own_and_a_public_text() -> None:
    from mynah import errors
    from mynah.texts import keys

    classes = [
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    ]
    codes = [cls.code for cls in classes]
    assert len(codes) == len(set(codes))
    assert {cls.public for cls in classes} <= set(keys("en"))
