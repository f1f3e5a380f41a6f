"""The documentation is tested: what it names exists, what exists is named, what it shows works."""

from __future__ import annotations

import asyncio
import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import aiohttp
import pytest
import typer
import yaml
from typer.testing import CliRunner

from mynah import cli
from mynah.bench import BENCHES
from mynah.config import Settings, load
from mynah.config.layers import OPTIONAL_SECTIONS
from mynah.console.terminal import HELP
from mynah.dialogue.outbox import Outbox
from mynah.dialogue.reminders import Agenda
from mynah.providers import registry
from mynah.providers.base import Kind
from mynah.providers.commands import load_commands
from mynah.tools.base import ToolContext
from mynah.tools.loader import load_plugins
from tests.servers import app

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
CONFIGS = sorted((ROOT / "examples" / "config").glob("*.yaml"))
MAX_README_LINES = 70

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")


class Block(NamedTuple):
    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name(self.page)}: {self.text.strip().splitlines()[0][:40]}"


class AnyVariable(dict[str, str]):
    """An environment in which every variable is set."""

    def get(self, name: str, default: object = None) -> str:  # type: ignore[override]
        return self[name]

    def __missing__(self, name: str) -> str:
        return "k-0123456789abcdef"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(*languages: str) -> list[Block]:
    return [
        Block(page, language, text)
        for page in PAGES
        for language, text in FENCE.findall(page.read_text("utf-8"))
        if language in languages
    ]


def prose(text: str) -> str:
    return FENCE.sub("", text)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", prose(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_images_resolve(page: Path) -> None:
    for target in LINK.findall(prose(page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            assert target.startswith("https://"), f"{target}: use https"
            continue
        path, _, anchor = unquote(target).partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.is_file(), f"{target} does not exist"
        if DOCS in page.parents:
            assert DOCS in found.parents, f"{target} leaves docs/, so it is broken on the site"
        if anchor:
            assert anchor in anchors(found), f"{target}: there is no such heading"


def test_the_site_has_every_page() -> None:
    def files(entries: list[dict[str, object]]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                if isinstance(value, list):
                    yield from files(value)
                else:
                    yield str(value)

    listed = list(files(yaml.safe_load(read("mkdocs.yml"))["nav"]))
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("path", sorted((DOCS / "images").glob("*.svg")), ids=name)
def test_pictures_are_self_contained_and_described(path: Path) -> None:
    tree = ET.parse(path)
    space = "{http://www.w3.org/2000/svg}"
    assert tree.getroot().tag == f"{space}svg"
    assert tree.findtext(f"{space}title")
    assert tree.findtext(f"{space}desc")
    text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|@import|<image|<script", text), "GitHub shows no outside parts"


# ---------------------------------------------------------------- the front page


def test_the_front_page_is_one_screen_in_both_languages() -> None:
    english, chinese = read("README.md"), read("README.zh.md")
    shapes, codes = [], []
    for text in (english, chinese):
        assert text.count("\n") <= MAX_README_LINES
        shapes.append(re.findall(r"^#+(?= )", prose(text), re.MULTILINE))
        codes.append([re.sub(r"\s*#.*", "", code) for _, code in FENCE.findall(text)])
    assert shapes[0] == shapes[1], "the same sections in both"
    assert codes[0] == codes[1], "the same commands in both"
    assert "(README.zh.md)" in english
    assert "(README.md)" in chinese


@pytest.mark.parametrize("page", sorted((DOCS / "zh").glob("*.md")), ids=name)
def test_pages_in_both_languages_link_each_other(page: Path) -> None:
    assert f"](../{page.name})" in page.read_text("utf-8")
    assert f"](zh/{page.name})" in (DOCS / page.name).read_text("utf-8")


# ---------------------------------------------------------------- commands


def shown_commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        lines = [line for block in blocks("sh") if block.page == page for line in block.text.splitlines()]
        for line in (*lines, *INLINE.findall(prose(text))):
            command = re.sub(r"\s+[#>|].*", "", line).strip().removeprefix(".venv/bin/")
            if command.startswith(("mynah ", "make ")) and "<" not in command:
                found.append((name(page), command))
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), [c for c in shown_commands() if c[1].startswith("mynah ")])
def test_commands_parse(page: str, command: str) -> None:
    """All options are looked at before ``--help`` is obeyed, so a mistyped one is an error."""
    words = [part.strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|\S+", command)][1:]
    words = [word for word in words if word != "…"]
    result = CliRunner().invoke(cli.app, words if "--version" in words else [*words, "--help"])
    assert result.exit_code == 0, f"{page}: {command}\n{result.output}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", read("Makefile"), re.MULTILINE))
    for page, command in shown_commands():
        if command.startswith("make "):
            word = command.split()[1]
            assert word in targets, f"{page}: {command}"


def subcommands() -> Iterator[str]:
    for group, prefix in ((cli.app, "mynah"), (cli.config_app, "mynah config")):
        for command in group.registered_commands:
            callback = command.callback
            assert callback is not None
            yield f"{prefix} {command.name or callback.__name__}"


def test_every_command_is_documented() -> None:
    text = "\n".join(page.read_text("utf-8") for page in DOCS.rglob("*.md"))
    assert not [command for command in subcommands() if command not in text]


def test_every_option_of_talk_is_documented() -> None:
    command = typer.main.get_command(cli.app).commands["talk"]  # type: ignore[attr-defined]
    page = read("docs/talk.md")
    options = [option for parameter in command.params for option in parameter.opts if option != "--help"]
    assert not [option for option in options if option not in page]


def test_every_measurement_is_documented() -> None:
    page = read("docs/benchmarks.md")
    assert not [bench for bench in BENCHES if f"`{bench}`" not in page]


# ---------------------------------------------------------------- settings


# A block that is a list is a piece of a data file, such as the commands; everything else is a settings file.
SETTINGS = [block for block in blocks("yaml") if isinstance(yaml.safe_load(block.text), dict)]


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_shown_settings_load(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(block.text, "utf-8")
    check(file)


@pytest.mark.parametrize("file", CONFIGS, ids=name)
def test_example_settings_load(file: Path) -> None:
    check(file)
    assert file.name in read("examples/README.md")


def check(file: Path) -> None:
    values = yaml.safe_load(file.read_text("utf-8"))
    assert set(values) <= set(Settings.model_fields), "a key that no settings file has"
    settings = load(file, environ=AnyVariable())
    assert not settings.notices, "the documentation does not show settings without effect"
    for kind in Kind:
        if kind not in OPTIONAL_SECTIONS or getattr(settings.selected_module, kind):
            registry.create(kind, *settings.entry(kind))


@pytest.mark.parametrize("page", ["docs/models.md", "docs/zh/models.md"])
def test_every_provider_type_and_prepared_entry_is_documented(page: str) -> None:
    text = read(page)
    rows = [row for row in registry.available() if row.source == registry.BUILT_IN]
    assert not [f"{row.kind}.{row.type}" for row in rows if f"`{row.type}`" not in text]
    packaged = yaml.safe_load(read("src/mynah/config/default.yaml"))
    check_entries(packaged["LLM"], text)
    for kind in Kind:
        assert f"`{kind}`" in text


def test_every_prepared_vision_model_is_documented() -> None:
    check_entries(yaml.safe_load(read("src/mynah/config/default.yaml"))["VLLM"], read("docs/vision.md"))


def check_entries(entries: dict[str, dict[str, str]], text: str) -> None:
    for entry, options in entries.items():
        assert f"`{entry}`" in text
        variable = re.fullmatch(r"\$\{(\w+)\}", options.get("api_key", ""))
        assert variable is None or f"`{variable[1]}`" in text, f"the key of {entry}"


# ---------------------------------------------------------------- tools


def test_every_built_in_tool_is_documented() -> None:
    page = read("docs/plugins.md")
    assert not [tool.spec.name for tool in load_plugins().functions if f"`{tool.spec.name}`" not in page]


def test_the_shown_tool_works(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("python") if block.page.name == "plugins.md")
    (tmp_path / "room_temperature.py").write_text(block.text, "utf-8")
    plugins = load_plugins(tmp_path)
    assert not plugins.faults
    tool = next(tool for tool in plugins.functions if tool.spec.name == "room_temperature")
    assert tool.spec.description == "Say how warm a room is."
    assert (
        tool.spec.parameters["properties"]["room"]["description"] == "name of the room, for example kitchen"
    )


async def test_the_example_plugin_works(tmp_path: Path) -> None:
    plugins = load_plugins(ROOT / "examples" / "plugins")
    assert not plugins.faults
    tools = {tool.spec.name: tool for tool in plugins.functions}
    context = ToolContext(
        device_id="02:00:00:00:00:01",
        language="en",
        now=lambda: datetime.now(UTC),
        reminders=Agenda(Outbox(lambda _: None).announce).of("02:00:00:00:00:01"),
        settings={"file": str(tmp_path / "list.txt")},
    )
    assert (await tools["read_shopping_list"].call(context, {})).content == "The shopping list is empty"
    for item in ("milk", "two  lemons"):
        await tools["add_to_shopping_list"].call(context, {"item": item})
    assert (await tools["read_shopping_list"].call(context, {})).content == "On the list: milk, two lemons"


@pytest.mark.parametrize(
    ("page", "mark", "language"),
    [("docs/quickstart.md", "Things to say:", "en"), ("docs/zh/quickstart.md", "可以试试：", "zh")],
)
def test_things_to_say_are_understood_without_a_model(page: str, mark: str, language: str) -> None:
    paragraph = read(page).partition(mark)[2].partition("\n\n")[0]
    phrases = [phrase.replace("\n", " ") for phrase in re.findall(r"\*([^*]+)\*", paragraph)]
    assert len(phrases) >= 5
    commands = load_commands(language)
    assert not [phrase for phrase in phrases if commands.match(phrase) is None]


# ---------------------------------------------------------------- a running server


@pytest.mark.parametrize("page", ["docs/quickstart.md", "docs/zh/quickstart.md"])
def test_every_command_of_the_terminal_is_documented(page: str) -> None:
    commands = [re.split(r"  +", line)[0] for line in HELP.splitlines()]
    assert len(commands) >= 10
    assert not [command for command in commands if f"| `{command}` |" not in read(page)]


async def test_the_shown_program_gets_a_token_for_pictures(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("python") if block.page.name == "vision.md")
    async with app(tmp_path, "selected_module.VLLM=FakeVLLM", "VLLM={FakeVLLM: {type: fake}}") as (_, at):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", block.text, at.ota, stdout=asyncio.subprocess.PIPE
        )
        told = (await process.communicate())[0].decode()
        shown = dict(word.split("=", 1) for word in told.split())
        form = aiohttp.FormData({"question": "what is this"})
        form.add_field("file", b"\xff\xd8\xff\xe0 a picture", filename="photo.jpg")
        headers = {"Authorization": f"Bearer {shown['VISION_TOKEN']}"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(shown["VISION_URL"], data=form, headers=headers) as reply,
        ):
            assert (await reply.json())["success"] is True


# ---------------------------------------------------------------- architecture


def test_the_table_of_rooms_is_that_of_the_import_contracts() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", read("docs/architecture.md").partition("## Rooms")[2], re.MULTILINE)
    told = [set(re.findall(r"`(\w+)`", row)) for row in rows]
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    enforced = [{module.strip().removeprefix("mynah.") for module in layer.split("|")} for layer in layers]
    table = told[: len(enforced)]
    assert table == enforced
    present = {path.stem for path in (ROOT / "src" / "mynah").iterdir() if path.name[0] != "_"} - {"py"}
    assert present == set().union(*enforced) | {"sim"}


def test_files_named_in_prose_exist() -> None:
    """`tests/….py`, `src/…`, `examples/…`, `benchmarks/…` and the like; a star stands for anything."""
    pattern = re.compile(r"`((?:tests|src|examples|benchmarks|scripts|docs)/[\w./*-]+)`")
    for page in PAGES:
        for path in pattern.findall(page.read_text("utf-8")):
            assert list(ROOT.glob(path.rstrip("/"))), f"{name(page)}: {path}"
