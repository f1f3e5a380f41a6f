# ruff: noqa: E501 - messages are compared whole
"""Layers, messages and checks of `mynah.config.load`."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mynah import config
from mynah.errors import ConfigError


def load(tmp_path: Path, text: str, *overrides: str, **environ: str) -> config.Settings:
    file = tmp_path / "my.yaml"
    file.write_text(text, "utf-8")
    return config.load(file, overrides, environ)


def message(tmp_path: Path, text: str, *overrides: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides, **environ)
    line = str(caught.value)
    assert "\n" not in line
    return line.replace(str(tmp_path), "DIR")


def test_packaged_defaults_select_the_embedded_providers() -> None:
    settings = config.defaults()
    assert {
        kind: settings.entry(kind)[1]["type"] for kind in ("VAD", "ASR", "LLM", "TTS", "Memory", "Intent")
    } == {
        "VAD": "silero",
        "ASR": "pocketsphinx",
        "LLM": "builtin",
        "TTS": "espeak",
        "Memory": "nomem",
        "Intent": "function_call",
    }
    assert (settings.server.ip, settings.server.port, settings.server.http_port) == ("0.0.0.0", 8000, 8003)
    assert settings.close_connection_no_voice_time == 100
    assert (settings.timeouts.asr_s, settings.timeouts.llm_s, settings.timeouts.tts_s) == (3, 10, 5)
    assert "退出" in settings.exit_commands
    with pytest.raises(ConfigError, match=r"selected_module\.VLLM is empty"):
        settings.entry("VLLM")


def test_a_vision_model_may_be_selected_or_not(tmp_path: Path) -> None:
    text = "selected_module: {VLLM: ChatGLMVLLM}\n"
    assert load(tmp_path, text, CHATGLM_API_KEY="k1").entry("VLLM")[1]["model_name"] == "glm-4v-flash"
    assert "CHATGLM_API_KEY, which is not set" in message(tmp_path, text)
    assert "there is no entry 'Eyes' in section VLLM" in message(tmp_path, "selected_module: {VLLM: Eyes}\n")


def test_later_layers_win(tmp_path: Path) -> None:
    text = "server: {port: 1, http_port: 2, console_port: 3}\n"
    settings = load(
        tmp_path,
        text,
        "server.console_port=33",
        MYNAH__SERVER__HTTP_PORT="22",
        MYNAH__SERVER__CONSOLE_PORT="0",
    )
    assert (settings.server.port, settings.server.http_port, settings.server.console_port) == (1, 22, 33)
    assert settings.server.pull4g_port == 10002
    assert settings.path == tmp_path / "my.yaml"


def test_files_in_the_working_directory_are_found_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.load(environ={}).path is None
    Path("config.yaml").write_text("server: {port: 1}", "utf-8")
    assert config.load(environ={}).server.port == 1
    Path("data").mkdir()
    Path("data/.config.yaml").write_text("", "utf-8")
    assert config.load(environ={}).server.port == 8000


def test_one_api_key_is_enough_for_a_packaged_entry(tmp_path: Path) -> None:
    settings = load(tmp_path, "selected_module: {LLM: ChatGLMLLM}\nLLM: {ChatGLMLLM: {api_key: sk-1234}}\n")
    name, options = settings.entry("LLM")
    assert name == "ChatGLMLLM"
    assert options["base_url"].startswith("https://open.bigmodel.cn/")
    assert options["api_key"] == "sk-1234"


def test_keys_come_from_the_environment(tmp_path: Path) -> None:
    text = "selected_module: {LLM: DeepSeekLLM}\n"
    assert load(tmp_path, text, DEEPSEEK_API_KEY="k1").entry("LLM")[1]["api_key"] == "k1"
    options = load(tmp_path, text, MYNAH__LLM__DEEPSEEKLLM__API_KEY="0123").entry("LLM")[1]
    assert options["api_key"] == "0123"
    assert message(tmp_path, text, DEEPSEEK_API_KEY="") == (
        "DIR/my.yaml:1: LLM.DeepSeekLLM.api_key needs the environment variable DEEPSEEK_API_KEY, which is not set: "
        "set it, or write the value itself at that key"
    )


def test_variables(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "prompt: '${WHO} costs $${PRICE} ${UNIT:-EUR} ${EMPTY:-x}'\nplugins: {a: {k: '${NONE}'}}\nLLM: {X: {type: '${NONE}'}}",
        WHO="tea",
        EMPTY="",
    )
    assert settings.prompt == "tea costs ${PRICE} EUR x"
    assert "server.ip needs the environment variable HOST" in message(tmp_path, "server: {ip: '${HOST}'}")


def test_an_entry_of_another_type_replaces_the_packaged_one(tmp_path: Path) -> None:
    settings = load(tmp_path, "LLM: {ChatGLMLLM: {type: fake, text: hi}}")
    assert settings.LLM["ChatGLMLLM"] == {"type": "fake", "text": "hi"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("server:\n  prot: 1\n", "DIR/my.yaml:2: unknown key server.prot: did you mean server.port?"),
        ("llm: {}\n", "DIR/my.yaml:1: unknown key llm: did you mean LLM?"),
        ("server:\n  port: abc\n", "DIR/my.yaml:2: server.port: expected a whole number, found 'abc'"),
        (
            "server: {port: 70000}",
            "DIR/my.yaml:1: server.port: input should be less than or equal to 65535, found 70000",
        ),
        (
            "selected_module:\n\n  LLM: ChatGLM\n",
            "DIR/my.yaml:3: selected_module.LLM: there is no entry 'ChatGLM' in section LLM: did you mean ChatGLMLLM?",
        ),
        (
            "server: {auth: {enabled: perhaps}}",
            "DIR/my.yaml:1: server.auth.enabled: expected auto, true or false, found 'perhaps'",
        ),
        ("server:\n  port: 1\n  port: 2\n", "DIR/my.yaml:3: server.port is written twice; keep one"),
        ("a: [1", "DIR/my.yaml:2: this is not valid YAML: did not find expected ',' or ']'"),
        ("- 1\n", "DIR/my.yaml: expected `key: value` lines, found list"),
        ("LLM: {Mine: {api_key: x}}", "DIR/my.yaml:1: LLM.Mine.type is missing: add the type, see `mynah providers`"),
        (
            "server: {auth: {allowed_devices: [11:22:33:44:55:56]}}",
            "DIR/my.yaml:1: server.auth.allowed_devices[0]: expected text; put it in quotes, found 8846009756",
        ),
        ("timezone: Mars/Base", "DIR/my.yaml:1: timezone: is not a known time zone; write it like Europe/Berlin, found 'Mars/Base'"),
        (
            "selected_module: {LLM: AliLLM}\nLLM: {AliLLM: {api_key: 你的deepseek web key}}",
            "DIR/my.yaml:2: LLM.AliLLM.api_key still holds the template's example text: write your own there",
        ),
        ("server: {websocket: 'http://x'}", "DIR/my.yaml:1: server.websocket: must begin with ws:// or wss://, found 'http://x'"),
        ("selected_module: {TTS: ''}", "DIR/my.yaml:1: selected_module.TTS is empty: name an entry of the TTS section"),
    ],
)  # fmt: skip
def test_one_line_says_where_what_and_how_to_mend_it(tmp_path: Path, text: str, expected: str) -> None:
    assert message(tmp_path, text) == expected


def test_messages_name_the_layer_and_count_the_rest(tmp_path: Path) -> None:
    assert message(tmp_path, "", MYNAH__SERVER__PROT="1").startswith(
        "environment variable MYNAH__SERVER__PROT: unknown key server.prot"
    )
    assert message(tmp_path, "", "server.port=x").startswith(
        "command line: server.port: expected a whole number"
    )
    assert message(tmp_path, "", "server.port").startswith("-s server.port: expected key=value")
    assert message(tmp_path, "a: 1\nb: 2\nc: 3").endswith("(2 more: `mynah config validate`)")
    _, problems = config.inspect(tmp_path / "my.yaml", (), {})
    assert [problem.origin for problem in problems] == [f"{tmp_path}/my.yaml:{line}" for line in (1, 2, 3)]


def test_secrets_do_not_appear_in_messages(tmp_path: Path) -> None:
    assert "s3cret" not in message(tmp_path, "server: {auth_key: [s3cret]}")


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        config.load(tmp_path / "none.yaml", (), {})
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(tmp_path / "b.yaml", (), {})


@pytest.mark.parametrize(
    ("offset", "minutes"), [("+8", 480), ("5.5", 330), ("-3", -180), ("480", 480), ("-210", -210)]
)
def test_time_zone_offset_in_hours_or_minutes(tmp_path: Path, offset: str, minutes: int) -> None:
    delta = load(tmp_path, f"server: {{timezone_offset: {offset}}}").zone().utcoffset(None)
    assert delta is not None
    assert delta.total_seconds() == minutes * 60


def test_quotes_on_the_command_line_mean_text() -> None:
    assert (
        config.defaults('LLM.Mine={"type": "openai"}', 'LLM.Mine.model_name="401"').LLM["Mine"]["model_name"]
        == "401"
    )


def test_override_values_keep_what_was_typed() -> None:
    settings = config.defaults(
        "prompt=007",
        "server.auth_key=12345",
        "exit_commands=[a, b]",
        "wakeup_words=[]",
        "log.log_level=debug",
    )
    assert settings.prompt == "007"
    assert settings.server.auth_key.get_secret_value() == "12345"
    assert settings.exit_commands == ("a", "b")
    assert settings.wakeup_words == ()
    assert settings.log.log_level == "DEBUG"
    assert config.defaults("prompt={a}").prompt == "{a}"
    assert config.defaults("plugins.x.y={a: 1}").plugins["x"]["y"] == {"a": 1}
    assert config.defaults("plugins.x.y={a: 1").plugins["x"]["y"] == "{a: 1"
    assert config.defaults("prompt=you: are @me").prompt == "you: are @me"


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(text: str) -> None:
    from mynah.config.layers import read_yaml

    try:
        read_yaml(text, "f")
    except ConfigError as error:
        assert "\n" not in str(error)


@given(st.text(max_size=60))
def test_no_override_breaks_the_reader(text: str) -> None:
    try:
        config.defaults(text)
    except ConfigError as error:
        assert str(error)


@pytest.mark.parametrize("token", ['""', '" "'])
def test_an_empty_fixed_token_is_refused(tmp_path: Path, token: str) -> None:
    told = message(tmp_path, f"server: {{auth: {{tokens: [{{token: {token}, name: kitchen}}]}}}}\n")
    assert told.endswith(
        "server.auth.tokens[0].token: is empty: write a token of your own, or remove this entry"
    )
