"""A file written for xiaozhi-esp32-server loads."""

from __future__ import annotations

from pathlib import Path

from mynah import config

FILE = """
server:
  ip: 0.0.0.0
  port: 8000
  http_port: 8003
  websocket: ws://你的ip或者域名:端口号/xiaozhi/v1/
  vision_explain: http://你的ip或者域名:端口号/mcp/vision/explain
  timezone_offset: +8
  auth_key: 你的密钥
  auth:
    enabled: false
    tokens:
      - {token: "your-token1", name: "your-device-name1"}
      - {token: "a-real-token", name: kitchen}
    allowed_devices: ["24:0A:C4:1D:3B:F0"]
  mqtt_gateway: null
  mqtt_signature_key: abc
log:
  log_format: "<green>{time:YYMMDD HH:mm:ss}</green>[{version}_{selected_module}]-{message}"
  log_format_file: "{time} - {message}"
  log_level: INFO
  log_dir: tmp
  log_file: "server.log"
  data_dir: data
delete_audio: true
close_connection_no_voice_time: 90
tts_timeout: 7
enable_wakeup_words_response_cache: true
enable_greeting: true
enable_stop_tts_notify: false
stop_tts_notify_voice: "config/assets/tts_notify.mp3"
tts_audio_send_delay: 0
exit_commands: ["退出"]
xiaozhi:
  type: hello
  version: 1
  transport: websocket
  audio_params: {format: opus, sample_rate: 16000, channels: 1, frame_duration: 60}
module_test: {test_sentences: ["one"]}
wakeup_words: ["你好小智"]
mcp_endpoint: 你的接入点 websocket地址
plugins:
  get_weather: {api_host: h, api_key: k, default_location: l}
voiceprint:
  url:
  speakers: ["a,b,c"]
prompt: |
  Be brief.
prompt_template: agent-base-prompt.txt
timezone: Asia/Shanghai
language: zh
end_prompt: {enable: true, prompt: bye}
device_max_output_size: 9000
manager-api: {url: "", secret: ""}
selected_module: {VAD: SileroVAD, LLM: OllamaLLM, Memory: nomem, Intent: function_call}
Intent:
  function_call: {type: function_call, functions: [get_weather]}
Memory:
  mem0ai: {type: mem0ai, api_key: 你的mem0ai api key}
ASR:
  FunASR: {type: fun_local, model_dir: models/SenseVoiceSmall, output_dir: tmp/}
VAD:
  SileroVAD: {type: silero, threshold: 0.5, threshold_low: 0.3, model_dir: m, min_silence_duration_ms: 200}
LLM:
  OllamaLLM: {type: ollama, model_name: qwen2.5, base_url: "http://localhost:11434"}
  DeepSeekLLM: {type: openai, model_name: deepseek-chat, url: "https://api.deepseek.com", api_key: x}
TTS:
  EdgeTTS: {type: edge, voice: zh-CN-XiaoxiaoNeural, output_dir: tmp/}
"""


def load(tmp_path: Path, *overrides: str) -> config.Settings:
    file = tmp_path / ".config.yaml"
    file.write_text(FILE, "utf-8")
    return config.load(file, overrides, {})


def test_values_are_taken_over(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.server.websocket == ""
    assert settings.server.vision_explain == ""
    assert settings.server.auth_key.get_secret_value() == ""
    assert [item.name for item in settings.server.auth.tokens] == ["kitchen"]
    assert settings.timeouts.tts_s == 7
    assert settings.close_connection_no_voice_time == 90
    assert settings.xiaozhi.audio_params.sample_rate == 16000
    assert settings.language == "zh"
    assert load(tmp_path, "timeouts.tts_s=4").timeouts.tts_s == 4


def test_openai_compatible_entries_are_adapted(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.entry("LLM")[1] == {
        "type": "openai",
        "model_name": "qwen2.5",
        "base_url": "http://localhost:11434/v1",
        "api_key": "ollama",
    }
    assert settings.end_prompt.prompt == "bye"
    assert settings.prompt_template == "agent-base-prompt.txt"
    assert settings.device_max_output_size == 9000
    assert settings.LLM["DeepSeekLLM"]["base_url"] == "https://api.deepseek.com"
    assert "output_dir" not in settings.TTS["EdgeTTS"]
    assert "model_dir" not in settings.VAD["SileroVAD"]
    assert settings.ASR["FunASR"]["model_dir"] == "models/SenseVoiceSmall"


def test_keys_without_effect_are_named(tmp_path: Path) -> None:
    notices = load(tmp_path).notices
    named = {notice.split(": ")[1].split()[0] for notice in notices}
    assert named == {
        "server.mqtt_signature_key", "manager-api", "delete_audio", "tts_audio_send_delay",
        "enable_wakeup_words_response_cache", "enable_stop_tts_notify", "stop_tts_notify_voice",
        "mcp_endpoint", "voiceprint", "module_test",
    }  # fmt: skip
    assert all(":" in notice and ".config.yaml:" in notice for notice in notices)
