"""Facts about xiaozhi-esp32-server's configuration file, so that an existing file keeps working.

Each of its keys is either a setting here, or renamed (`RENAMED`), or accepted without effect (`ACCEPTED`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

ACCEPTED: Final[dict[str, str]] = {
    "server.mqtt_gateway": "no MQTT gateway is needed or contacted",
    "server.mqtt_signature_key": "no MQTT gateway is needed or contacted",
    "server.mqtt_manager_api": "no MQTT gateway is needed or contacted",
    "server.udp_gateway": "no MQTT gateway is needed or contacted",
    "server.firmware_cache_ttl": "the folder of firmware is looked at again whenever a device asks",
    "read_config_from_api": "settings come from this file, not from a manager API",
    "manager-api": "settings come from this file, not from a manager API",
    "delete_audio": "audio is never written to disk",
    "tts_audio_send_delay": "audio is always paced against an absolute clock",
    "enable_websocket_ping": "pings are always answered",
    "enable_wakeup_words_response_cache": "repeated phrases are always cached",
    "enable_stop_tts_notify": "no sound is played after a reply",
    "stop_tts_notify_voice": "no sound is played after a reply",
    "role_id": "there are no role files; `prompt` sets the character",
    "system_error_response": "error phrases are localised texts of the package",
    "context_providers": "no outside sources are added to the prompt yet",
    "mcp_endpoint": "MCP endpoints are not connected yet",
    "voiceprint": "speakers are not told apart yet",
    "module_test": "`mynah bench` brings its own sentences",
}
"""Key → why it has no effect here. A key covers everything below it."""

RENAMED: Final[dict[str, str]] = {
    "tts_timeout": "timeouts.tts_s",
    "tool_call_timeout": "timeouts.tool_s",
}
"""Key there → setting here."""

IDLE_OPTIONS: Final[dict[str, dict[str, str]]] = {
    "VAD": {"model_dir": "the network is part of the package"},
    "ASR": {"output_dir": "audio is never written to disk"},
    "TTS": {"output_dir": "audio is never written to disk"},
}
"""Section → option of its entries → why it has no effect here."""

_OPENAI_SERVERS: Final = frozenset({"ollama", "xinference"})
"""Types there that are servers with an OpenAI-compatible address under /v1."""


def adapt_entry(section: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Rewrite one provider entry to our names, without the options that have no effect here."""
    idle = IDLE_OPTIONS.get(section, {})
    result = {option: value for option, value in entry.items() if option not in idle}
    if section in {"LLM", "VLLM"}:
        if "url" in result and "base_url" not in result:
            result["base_url"] = result.pop("url")
        if result.get("type") in _OPENAI_SERVERS:
            result["type"] = "openai"
            address = result.get("base_url")
            if isinstance(address, str) and not address.rstrip("/").endswith("/v1"):
                result["base_url"] = address.rstrip("/") + "/v1"
    return result
