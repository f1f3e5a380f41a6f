"""One table for built-in and third-party providers, and errors that say what to do."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
from pydantic import AliasChoices, Field, SecretStr

from mynah.errors import ConfigError
from mynah.providers import registry
from mynah.providers.base import AsrProvider, Kind, LlmProvider, ProviderOptions


class KeyedOptions(ProviderOptions):
    model_name: str = Field(description="the model's name")
    api_key: SecretStr
    base_url: str = Field(default="http://x", validation_alias=AliasChoices("base_url", "url"))
    second_key: SecretStr | None = None
    tries: int = 3


class Keyed(LlmProvider[KeyedOptions]):
    Options = KeyedOptions
    summary = "a third party's model"


class NoLlm(AsrProvider[ProviderOptions]):
    pass


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Entry points as a third-party package would register them: name → value."""
    module = ModuleType("third_party")
    module.Keyed = Keyed  # type: ignore[attr-defined]
    module.NoLlm = NoLlm  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "third_party", module)
    registered = {"LLM.keyed": "third_party:Keyed"}
    monkeypatch.setattr(
        registry,
        "entry_points",
        lambda group: [EntryPoint(name, value, group) for name, value in registered.items()],
    )
    return registered


def failure(kind: Kind, name: str, entry: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        registry.create(kind, name, entry)
    message = str(caught.value)
    assert "\n" not in message
    return message


GOOD = {"type": "keyed", "model_name": "m", "api_key": "sk-1234"}


def test_every_built_in_is_listed_with_one_line() -> None:
    rows = registry.available()
    listed = {f"{row.kind}.{row.type}" for row in rows}
    assert listed >= {
        "VAD.silero", "VAD.energy", "ASR.pocketsphinx", "ASR.fake", "LLM.openai", "LLM.builtin", "LLM.fake",
        "VLLM.openai", "VLLM.fake", "TTS.espeak", "TTS.fake", "Memory.nomem", "Intent.function_call", "Intent.nointent",
    }  # fmt: skip
    for row in rows:
        assert row.summary
        assert "\n" not in row.summary
        assert row.source == registry.BUILT_IN
        if row.type == "pocketsphinx" and find_spec("mynah.providers.asr.pocketsphinx") is None:
            pytest.skip("the recogniser is not built yet")
        assert "not usable" not in row.summary, row


def test_a_kind_lists_only_its_own() -> None:
    assert {row.kind for row in registry.available(Kind.TTS)} == {Kind.TTS}


def test_third_party_goes_through_the_same_door(plugins: dict[str, str]) -> None:
    row = next(row for row in registry.available(Kind.LLM) if row.type == "keyed")
    assert row.summary == "a third party's model"
    provider = registry.create(Kind.LLM, "Mine", {**GOOD, "url": "http://y"})
    assert isinstance(provider, Keyed)
    assert provider.name == "Mine"
    assert provider.options.base_url == "http://y"
    assert registry.options_model(Kind.LLM, "keyed") is KeyedOptions


def test_entry_without_type_uses_its_name(plugins: dict[str, str]) -> None:
    assert registry.create(Kind.MEMORY, "nomem", {}).name == "nomem"
    assert registry.create(Kind.LLM, "keyed", {"model_name": "m", "api_key": "k-1"}).options.type == "keyed"


def test_broken_plugins_do_not_hide_the_others(plugins: dict[str, str]) -> None:
    plugins |= {
        "LLM.gone": "no_such_module_at_all:Thing",
        "LLM.lacks": "third_party:Thing",
        "LLM.wrong": "third_party:NoLlm",
        "nonsense": "third_party:Keyed",
        "KIND.x": "third_party:Keyed",
    }
    rows = {row.type: row.summary for row in registry.available(Kind.LLM)}
    assert "no_such_module_at_all" in rows["gone"]
    assert "cannot be loaded" in rows["lacks"]
    assert "not a LlmProvider" in rows["wrong"]
    assert rows["keyed"] == "a third party's model"
    assert not {"nonsense", "x"} & rows.keys()
    assert "not a LlmProvider" in failure(Kind.LLM, "X", {"type": "wrong"})


def test_two_packages_for_one_type(plugins: dict[str, str]) -> None:
    plugins["LLM.fake"] = "third_party:Keyed"
    assert "uninstall one" in failure(Kind.LLM, "X", {"type": "fake"})


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ({"type": "keyd"}, ["LLM.Mine.type", "'keyd'", "did you mean 'keyed'", "available:", "fake"]),
        ({"type": "zzz"}, ["unknown LLM type 'zzz'", "available:"]),
        ({"type": 3}, ["LLM.Mine.type: must be a text"]),
        ({**GOOD, "model": "m"}, ["LLM.Mine.model: unknown key", "did you mean 'model_name'", "url"]),
        ({**GOOD, "base_url": "http://a", "url": "http://b"}, ["LLM.Mine.url: the same setting as base_url"]),
        ({"type": "keyed", "api_key": "k-1"}, ["LLM.Mine.model_name: missing", "the model's name"]),
        ({**GOOD, "tries": "many"}, ["LLM.Mine.tries", "integer"]),
        ({**GOOD, "tries": "many", "x": 1}, ["LLM.Mine.tries", "LLM.Mine.x"]),
        ({"type": "keyed", "model_name": "m"}, ["LLM.Mine.api_key: no key", "${KEYED_API_KEY}", "none"]),
        ({**GOOD, "api_key": ""}, ["LLM.Mine.api_key: no key", "${KEYED_API_KEY}"]),
        ({**GOOD, "api_key": None}, ["LLM.Mine.api_key: no key"]),
        ({**GOOD, "api_key": "你的api_key"}, ["LLM.Mine.api_key", "placeholder", "${KEYED_API_KEY}"]),
        ({**GOOD, "api_key": "your-api-key"}, ["placeholder"]),
        ({**GOOD, "api_key": "YOUR_TOKEN"}, ["placeholder"]),
        ({**GOOD, "api_key": "sk-xxxxxxxx"}, ["placeholder"]),
        ({**GOOD, "api_key": "<key>"}, ["placeholder"]),
        ({**GOOD, "second_key": "你的第二个"}, ["LLM.Mine.second_key", "placeholder"]),
        ({**GOOD, "api_key": "${MY_KEY}"}, ["LLM.Mine.api_key", "MY_KEY is not set"]),
        ({**GOOD, "api_key": [12]}, ["LLM.Mine.api_key", "string"]),
    ],
)
def test_mistakes_name_the_key_and_the_remedy(
    plugins: dict[str, str], entry: dict[str, Any], parts: list[str]
) -> None:
    message = failure(Kind.LLM, "Mine", entry)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("key", ["none", "lm-studio", "sk-1", "ollama", "yourself4real", "EMPTY"])
def test_real_keys_are_not_taken_for_placeholders(plugins: dict[str, str], key: str) -> None:
    provider = registry.create(Kind.LLM, "Mine", {**GOOD, "api_key": key})
    assert provider.options.api_key.get_secret_value() == key


def test_optional_secret_may_be_left_empty(plugins: dict[str, str]) -> None:
    assert registry.create(Kind.LLM, "Mine", {**GOOD, "second_key": ""}).options.second_key is not None


def test_errors_do_not_repeat_secrets(plugins: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.create(Kind.LLM, "Mine", {**GOOD, "api_key": "sk-secret-value", "tries": "x"})
    assert "sk-secret-value" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_function_call_accepts_the_list_of_functions() -> None:
    intent = registry.create(Kind.INTENT, "function_call", {"functions": ["get_time"]})
    assert intent.options.functions == ("get_time",)
    assert intent.offers_tools  # type: ignore[attr-defined]
    assert not registry.create(Kind.INTENT, "nointent", {}).offers_tools  # type: ignore[attr-defined]


async def test_nomem_remembers_nothing() -> None:
    memory: Any = registry.create(Kind.MEMORY, "nomem", {})
    await memory.remember("device", ())
    assert await memory.recall("device", "anything") == ""


def test_a_name_that_looks_like_a_number_is_a_name(plugins: dict[str, str]) -> None:
    assert registry.create(Kind.LLM, "Mine", {**GOOD, "model_name": 4711}).options.model_name == "4711"


@pytest.mark.parametrize("address", ["llm.example.org/v1", "", "ftp://x", "localhost:11434"])
def test_an_address_without_scheme_is_refused_in_words(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        registry.create(
            Kind.LLM, "Mine", {"type": "openai", "model_name": "m", "api_key": "k", "base_url": address}
        )
    assert str(caught.value) == f"LLM.Mine.base_url: must begin with http:// or https://, found {address!r}"
