"""The command line: exit codes, one-line errors, and what is passed on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from mynah import __version__, cli
from mynah.errors import ProviderError
from mynah.wire.messages import ListenMode
from mynah.wire.pull4g import Codec
from tests.certificates import write_certificate


@pytest.fixture(autouse=True)
def _no_outside_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in list(__import__("os").environ):
        if name.startswith("MYNAH__"):
            monkeypatch.delenv(name)


def mynah(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mynah", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code if isinstance(ended.value.code, int) else 0


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, code: int = 0) -> list[dict[str, Any]]:
    """Put a module with a `run` that notes its arguments in the place of one that takes seconds."""
    calls: list[dict[str, Any]] = []

    def run(*args: Any, **kwargs: Any) -> int:
        calls.append({"args": args, **kwargs})
        return code

    found = types.ModuleType(module)
    found.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module, found)
    return calls


def test_version_and_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert mynah(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"mynah {__version__}\n"
    assert mynah(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    for command in ("serve", "talk", "demo", "bench", "providers", "doctor", "config"):
        assert f"  {command}" in text


def test_help_imports_none_of_the_heavy_parts() -> None:
    code = (
        "import sys; sys.argv=['mynah','--help']\n"
        "from mynah.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic','numpy','aiohttp','picows','rich','msgspec','loguru','yaml'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_serve_passes_the_settings_and_the_exit_code_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = stand_in(monkeypatch, "mynah.app", code=3)
    file = tmp_path / "f.yaml"
    file.write_text("server: {port: 5, http_port: 6}")
    assert mynah(monkeypatch, "serve", "-c", str(file), "-s", "server.port=7", "-s", "language=zh") == 3
    (settings,) = calls[0]["args"]
    assert (settings.server.port, settings.server.http_port, settings.language) == (7, 6, "zh")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("serve", "-s", "server.prot=1"),
            "mynah: command line: unknown key server.prot: did you mean server.port?",
        ),
        (
            ("serve", "-c", "none.yaml"),
            "mynah: none.yaml: cannot be read: No such file or directory; check `-c FILE`",
        ),
        (
            ("config", "show", "-s", "selected_module.LLM=ChatGLMLLM"),
            "mynah: command line: LLM.ChatGLMLLM.api_key needs the environment variable CHATGLM_API_KEY, which is not "
            "set: set it, or write the value itself at that key",
        ),
        (("providers", "LLM.nonsense"), "mynah: "),
        (("providers", "nonsense"), "mynah: nonsense: write kind and type, for example LLM.openai"),
    ],
)
def test_what_an_operator_can_mend_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.delenv("CHATGLM_API_KEY", raising=False)
    assert mynah(monkeypatch, *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(message)


def test_a_taken_port_is_exit_code_2_without_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "mynah.cli", "serve", "-s", "server.ip=127.0.0.1", "-s", f"server.http_port={port}",
             "-s", "server.port=0", "-s", "server.pull4g_port=0", "-s", "log.log_file=",
             "-s", f"log.data_dir={tmp_path}/data", "-s", "ASR.f={type: fake, text: hi}",
             "-s", "selected_module.ASR=f"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"mynah: port {port} (server.http_port) is already in use")
    assert "Traceback" not in done.stderr


def test_other_errors_of_ours_are_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(settings: object) -> int:
        raise ProviderError("the model is gone", provider="LLM")

    stand_in(monkeypatch, "mynah.app")
    monkeypatch.setattr(sys.modules["mynah.app"], "run", run)
    assert mynah(monkeypatch, "serve") == 1
    assert capsys.readouterr().err == "mynah: the model is gone\n"


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(settings: object) -> int:
        raise KeyboardInterrupt

    stand_in(monkeypatch, "mynah.app")
    monkeypatch.setattr(sys.modules["mynah.app"], "run", run)
    assert mynah(monkeypatch, "serve") == 130


def test_talk_passes_everything_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mynah.sim import talk
    from mynah.sim.conversation import Dialect

    seen: list[talk.TalkOptions] = []

    def run(options: talk.TalkOptions) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(talk, "run", run)
    assert mynah(monkeypatch, "talk", "--text", "hello") == 0
    assert seen[0] == talk.TalkOptions(text=("hello",))
    given = (
        "--ota http://h/ --url ws://h/ --text a --text b --wav x.wav --mic --json --save r.wav --mode manual "
        "--protocol 3 --transport ws --text-only --token t --device-id aa:bb:cc:dd:ee:01 --timeout 5 --lang en "
        "--voice kal --insecure --wake hi --dialect json --audio-format pcm --iot --photo p.jpg --codec adpcm --plain"
    )
    assert mynah(monkeypatch, "talk", *given.split()) == 0
    assert seen[1] == talk.TalkOptions(
        ota="http://h/", url="ws://h/", text=("a", "b"), wav=(Path("x.wav"),), mic=True, json=True, save=Path("r.wav"),
        mode=ListenMode.MANUAL, protocol=3, transport="ws", text_only=True, token="t", device_id="aa:bb:cc:dd:ee:01",
        timeout=5.0, lang="en", voice="kal", insecure=True, wake="hi", dialect=Dialect.JSON, audio_format="pcm",
        iot=True, photo=Path("p.jpg"), codec=Codec.ADPCM, framed=False,
    )  # fmt: skip
    assert mynah(monkeypatch, "talk", "--protocol", "4") == 2
    assert mynah(monkeypatch, "talk", "--mode", "loud") == 2
    capsys.readouterr()
    assert mynah(monkeypatch, "talk", "--lang", "fr") == 2
    assert "'fr' is not one of 'en', 'zh'" in capsys.readouterr().err


def test_arguments_of_talk_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mynah(monkeypatch, "talk", "--text", "x", "--timeout", "-3") == 2
    assert capsys.readouterr().err == "--timeout -3 makes no sense: more than 0 s, at most 86400\n"


def test_demo_and_bench(monkeypatch: pytest.MonkeyPatch) -> None:
    demo, bench = stand_in(monkeypatch, "mynah.demo", 1), stand_in(monkeypatch, "mynah.bench")
    assert mynah(monkeypatch, "demo") == 1
    assert mynah(monkeypatch, "bench", "--json", "--only", "opus", "--output", "b.json") == 0
    assert len(demo) == 1
    assert bench == [{"args": (True, ["opus"], Path("b.json"))}]


def test_config_show_masks_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mynah(monkeypatch, "config", "show", "-s", "server.auth_key=hush-hush-hush") == 0
    text = capsys.readouterr().out
    assert "hush" not in text
    assert yaml.safe_load(text)["server"]["auth_key"] == "********"
    assert mynah(monkeypatch, "config", "show", "--json") == 0
    assert json.loads(capsys.readouterr().out)["server"]["port"] == 8000


def test_what_config_show_prints_is_a_settings_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert mynah(monkeypatch, "config", "show", "-s", "server.port=5") == 0
    (tmp_path / "again.yaml").write_text(capsys.readouterr().out, "utf-8")
    assert mynah(monkeypatch, "config", "show", "-c", "again.yaml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["server"]["port"] == 5


def test_config_validate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("server:\n  prot: 1\nlog:\n  log_level: loud\n")
    assert mynah(monkeypatch, "config", "validate", str(bad)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"{bad}:2: unknown key server.prot")
    assert lines[1].startswith(f"{bad}:4: log.log_level: expected")

    fakes = "ASR: {f: {type: fake, text: hi}}\nselected_module: {ASR: f}\n"
    old = tmp_path / "old.yaml"
    old.write_text(fakes + "delete_audio: true\n")
    assert mynah(monkeypatch, "config", "validate", str(old)) == 0
    out = capsys.readouterr().out
    assert "notice: " in out
    assert "delete_audio has no effect" in out
    assert "nothing wrong" in out

    wrong_option = tmp_path / "option.yaml"
    wrong_option.write_text(fakes + "TTS: {EspeakTTS: {sped: 1}}\n")
    assert mynah(monkeypatch, "config", "validate", str(wrong_option)) == 2
    assert "TTS.EspeakTTS" in capsys.readouterr().err


def test_config_validate_finds_what_serve_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    cert, key = write_certificate(tmp_path)
    for tls, complaint in (
        (f"cert: {cert}", "server.tls.cert is set but server.tls.key is not"),
        (f"cert: {tmp_path}/none.pem, key: {key}", "server.tls.cert: there is no file"),
        (f"cert: {key}, key: {cert}", "server.tls: "),
    ):
        file = tmp_path / "settings.yaml"
        file.write_text(f"server: {{tls: {{{tls}}}}}\n")
        assert mynah(monkeypatch, "config", "validate", str(file)) == 2
        said = capsys.readouterr()
        assert complaint in said.err
        assert "nothing wrong" not in said.out


def test_config_validate_warns_of_folders_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        f"server: {{firmware_dir: {tmp_path}/images}}\nplugins: {{plugins_dir: {tmp_path}/tools}}\n"
    )
    assert mynah(monkeypatch, "config", "validate", str(file)) == 0
    out = capsys.readouterr().out
    assert f"warning: server.firmware_dir: there is no folder {tmp_path}/images\n" in out
    assert f"warning: plugins.plugins_dir: there is no folder {tmp_path}/tools\n" in out
    assert "nothing wrong" not in out
    (tmp_path / "images").mkdir()
    (tmp_path / "tools").mkdir()
    assert mynah(monkeypatch, "config", "validate", str(file)) == 0
    assert capsys.readouterr().out == f"{file}: nothing wrong\n"


def test_config_reference_is_the_documentation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mynah(monkeypatch, "config", "reference") == 0
    assert capsys.readouterr().out == (Path(__file__).parents[1] / "docs/configuration.md").read_text("utf-8")


def test_providers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert mynah(monkeypatch, "providers", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"kind": "LLM", "type": "openai"}.items() <= next(
        row for row in rows if row["type"] == "openai"
    ).items()
    assert mynah(monkeypatch, "providers") == 0
    assert "openai" in capsys.readouterr().out
    assert mynah(monkeypatch, "providers", "llm.openai") == 0
    assert "base_url" in capsys.readouterr().out
    assert mynah(monkeypatch, "providers", "LLM.openai", "--json") == 0
    assert "base_url" in json.loads(capsys.readouterr().out)["properties"]
