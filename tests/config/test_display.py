"""Masking and the reference documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mynah import config
from mynah.config.model import Settings

ROOT = Path(__file__).parents[2]


def test_the_documentation_is_current() -> None:
    written = (ROOT / "docs/configuration.md").read_text("utf-8")
    assert written == config.settings_reference(), "run: mynah config reference > docs/configuration.md"


def test_every_setting_is_described() -> None:
    text = config.settings_reference()
    for key in (
        "server.port",
        "server.auth.tokens[].token",
        "timeouts.llm_s",
        "xiaozhi.audio_params.sample_rate",
    ):
        assert f"| `{key}` |" in text
    assert all(field.description for field in Settings.model_fields.values())


def test_secrets_are_masked() -> None:
    settings = config.defaults(
        "server.auth_key=hush-hush-hush",
        "server.auth.tokens=[{token: token-of-kitchen, name: kitchen}]",
        "LLM.ChatGLMLLM.api_key=sk-very-secret",
        "LLM.ChatGLMLLM.max_tokens=500",
        "plugins.home.access_token=abcdefghij",
        "plugins.home.url=https://me:pa55word@example.org/?token=querytoken&x=1",
    )
    shown = yaml.safe_dump(config.masked(settings))
    for secret in ("hush", "token-of-kitchen", "very-secret", "abcdefghij", "pa55word", "querytoken"):
        assert secret not in shown
        assert secret not in repr(settings)
    assert "500" in shown
    assert "${DEEPSEEK_API_KEY}" in shown
    assert config.secret_values(settings) == {
        "hush-hush-hush", "token-of-kitchen", "sk-very-secret", "abcdefghij",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("api_key", True), ("access_token", True), ("token", True), ("secret_key", True), ("appkey", True),
        ("Authorization", True), ("personal_access_token", True), ("auth_key", True), ("elf_sha256", True),
        ("access_key_id", True), ("password", True), ("api-key", True),
        ("max_tokens", False), ("tokens", False), ("model_name", False), ("base_url", False),
    ],
)  # fmt: skip
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert config.is_secret_name(name) is secret
