"""What `mynah providers` and `mynah config` print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mynah.config import Settings, inspect, masked
from mynah.config.layers import OPTIONAL_SECTIONS
from mynah.errors import ConfigError
from mynah.providers import registry
from mynah.providers.base import Kind
from mynah.security.tls import server_context

EXIT_OK, EXIT_CONFIG = 0, 2


def show_providers(as_json: bool) -> None:
    """Print the table of providers, or the same as a JSON list."""
    rows = registry.available()
    if as_json:
        _print_json([msgspec.structs.asdict(row) for row in rows])
        return
    table = Table("kind", "type", "what it is", "from")
    for row in rows:
        table.add_row(row.kind, row.type, escape(row.summary), escape(row.source))
    console = Console()
    console.print(table)
    console.print("Options of one: mynah providers LLM.openai", highlight=False)


def show_options(name: str, as_json: bool) -> None:
    """Print the options of one provider, named ``LLM.openai``. Raises ConfigError when there is none such."""
    section, _, type_ = name.partition(".")
    kind = next((kind for kind in Kind if kind.lower() == section.lower()), None)
    if kind is None or not type_:
        raise ConfigError(
            f"{name}: write kind and type, for example LLM.openai; the kinds are {', '.join(Kind)}"
        )
    model = registry.options_model(kind, type_)
    if as_json:
        _print_json(model.model_json_schema())
        return
    table = Table("option", "default", "meaning")
    for option, field in model.model_fields.items():
        table.add_row(
            option,
            _default_text(field.get_default(call_default_factory=True)),
            escape(field.description or ""),
        )
    Console().print(table)


def _default_text(value: Any) -> str:
    if value is None or isinstance(value, SecretStr) or value == "":
        return ""
    return "required" if repr(value) == "PydanticUndefined" else escape(str(value))


def show_settings(settings: Settings, as_json: bool) -> None:
    """Print the settings in effect, secrets masked."""
    if as_json:
        _print_json(masked(settings))
        return
    source = settings.path or "packaged defaults only"
    sys.stdout.write(
        f"# from {source}\n{yaml.safe_dump(masked(settings), allow_unicode=True, sort_keys=False, width=120)}"
    )


def validate(file: Path | None, overrides: Sequence[str]) -> int:
    """Print every problem of a settings file on its own line; return the exit code.

    Providers' options, certificates and folders are looked at as well, as `mynah serve` does.
    """
    from mynah import engine  # only here: listing providers should not load all of it

    settings, problems = inspect(file, overrides)
    if settings is None:
        for problem in problems:
            print(problem, file=sys.stderr)  # noqa: T201 - this is the command's output
        return EXIT_CONFIG
    code = EXIT_OK
    warnings = _missing_folders(settings)
    kinds = [
        kind for kind in Kind if kind not in OPTIONAL_SECTIONS or getattr(settings.selected_module, kind)
    ]
    checks: list[Callable[[], object]] = [
        partial(server_context, settings, warnings.append),
        partial(engine.check, settings),
        *(partial(_create, settings, kind) for kind in kinds),
    ]
    for check in checks:
        try:
            check()
        except ConfigError as error:
            print(error, file=sys.stderr)  # noqa: T201
            code = EXIT_CONFIG
    for warning in warnings:
        print(f"warning: {warning}")  # noqa: T201
    for notice in settings.notices:
        print(f"notice: {notice}")  # noqa: T201
    if code == EXIT_OK:
        verdict = "the server starts, but see above" if warnings else "nothing wrong"
        print(f"{settings.path or 'packaged defaults'}: {verdict}")  # noqa: T201
    return code


def _create(settings: Settings, kind: Kind) -> None:
    registry.create(kind, *settings.entry(kind))


def _missing_folders(settings: Settings) -> list[str]:
    named = {
        "server.firmware_dir": settings.server.firmware_dir,
        "plugins.plugins_dir": settings.plugins.get("plugins_dir"),
    }
    return [
        f"{key}: there is no folder {name}" for key, name in named.items() if name and not Path(name).is_dir()
    ]


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
