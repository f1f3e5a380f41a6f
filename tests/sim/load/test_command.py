"""`mynah loadtest`: arguments, exit codes, and what people read."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mynah.cli import app
from mynah.errors import ConfigError
from mynah.sim.load import command as module
from mynah.sim.load import report as reports
from mynah.sim.load.command import _ADVICE, LoadtestOptions, main, scenario_of, summarise
from mynah.sim.load.director import LoadOptions
from mynah.sim.load.record import Bottleneck, Check, Knee, LoadReport, Machine, Step, Warned
from mynah.sim.load.scenario import BUILT_IN, Behaviour, Transport
from mynah.wire.messages import ListenMode
from mynah.wire.pull4g import Codec

from ..scripted import ScriptedServer, silent

URL = "ws://127.0.0.1:8000/xiaozhi/v1/"

PASSED = LoadReport(
    target=URL, passed=True, steps=[Step(number=1, devices=5, connected=5)], bottleneck=Bottleneck.NONE
)


def test_the_command_line_wins_over_the_scenario() -> None:
    options = LoadtestOptions(
        url=URL,
        scenario="standard",
        behaviour=Behaviour.TALK,
        duration_s=3,
        rate=7,
        mode=ListenMode.MANUAL,
        protocol=2,
    )
    wanted = scenario_of(options)
    assert (wanted.behaviour, wanted.hold_s, wanted.connects_per_s) == (Behaviour.TALK, 3, 7)
    assert (wanted.mode, wanted.protocol, wanted.steps) == (ListenMode.MANUAL, 2, BUILT_IN["standard"].steps)
    assert scenario_of(LoadtestOptions(url=URL)) == BUILT_IN["quick"]


def test_what_follows_from_the_transport() -> None:
    def form(**given: Any) -> tuple[ListenMode, Codec, bool]:
        wanted = scenario_of(LoadtestOptions(url=URL, transport=Transport.PULL4G, **given))
        return wanted.mode, wanted.codec, wanted.framed

    assert form() == (ListenMode.MANUAL, Codec.OPUS, True)
    assert form(framed=False) == (ListenMode.MANUAL, Codec.PCM, False)
    assert form(framed=False, codec=Codec.ADPCM) == (ListenMode.MANUAL, Codec.ADPCM, False)
    for given, message in (
        ({"mode": ListenMode.AUTO}, "mode: must be manual with transport pull4g"),
        ({"codec": Codec.OPUS, "framed": False}, "codec: opus needs framed: true"),
        ({"protocol": 2}, "protocol: leave it out"),
    ):
        with pytest.raises(ConfigError, match=message):
            form(**given)
    with pytest.raises(ConfigError, match="--codec, --framed and --plain need --transport pull4g"):
        scenario_of(LoadtestOptions(url=URL, framed=True))
    with pytest.raises(ConfigError, match="add --transport pull4g"):
        main(LoadtestOptions(url="tcp://h:1"))
    with pytest.raises(ConfigError, match="is a WebSocket"):
        main(LoadtestOptions(url="ws://h/", transport=Transport.PULL4G))


def test_a_changed_scenario_has_another_name(tmp_path: Path) -> None:
    def name(**given: Any) -> str:
        return scenario_of(LoadtestOptions(url=URL, **given)).name

    assert name() == "quick"
    assert name(steps="100,500", duration_s=10.0, behaviour=Behaviour.IDLE) == "quick", "the same values"
    assert name(behaviour=Behaviour.TALK) == name(steps="1") == name(rate=5.0) == "quick, changed"
    assert name(scenario="stress", mode=ListenMode.MANUAL) == "stress, changed"
    for text, own in (
        ("name: evening", "evening"),
        ("name: ''", "custom"),
        ("name: quick, changed", "quick"),
    ):
        path = tmp_path / "mine.yaml"
        path.write_text(text, "utf-8")
        assert name(scenario=str(path), protocol=3) == f"{own}, changed"


def test_the_report_says_what_was_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "run", lambda *_: PASSED)
    main(LoadtestOptions(url=URL, json=True, report="", behaviour=Behaviour.TALK, steps="1,50"))
    told = json.loads(capsys.readouterr().out)["changed"]
    assert told == {"steps": [100, 500], "behaviour": "idle", "hold_s": 10.0}
    main(LoadtestOptions(url=URL, json=True, report=""))
    assert json.loads(capsys.readouterr().out)["changed"] == {}


def test_steps() -> None:
    def steps(**given: object) -> tuple[int, ...]:
        return scenario_of(LoadtestOptions(url=URL, scenario="standard", **given)).steps  # type: ignore[arg-type]

    assert steps() == (100, 500, 1000, 2000)
    assert steps(devices=700) == (100, 500, 700)
    assert steps(devices=30) == (30,)
    assert steps(devices=9000) == (100, 500, 1000, 2000, 9000)
    assert steps(steps="5, 50") == (5, 50)
    with pytest.raises(ConfigError, match="--steps 5,x: write numbers"):
        steps(steps="5,x")
    with pytest.raises(ConfigError, match="steps: write them in ascending order"):
        steps(steps="50,5")


def test_a_file_is_held_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("hold_s: 10\n", "utf-8")
    assert scenario_of(LoadtestOptions(url=URL, scenario=str(path), behaviour=Behaviour.TALK)).hold_s == 10.0


def test_who_talks_is_given_the_time() -> None:
    assert scenario_of(LoadtestOptions(url=URL, behaviour=Behaviour.MIXED)).hold_s == 20.0
    assert scenario_of(LoadtestOptions(url=URL, behaviour=Behaviour.IDLE)).hold_s == 10.0


@pytest.mark.parametrize("url", ["", "localhost:8000", "mqtt://host/", "ws://", "ws://[fe80::1/x"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match="give the address of a server: ws://"):
        main(LoadtestOptions(url=url))


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (PASSED, 0),
        (msgspec.structs.replace(PASSED, passed=False, reasons=["too slow"]), 1),
        (msgspec.structs.replace(PASSED, passed=False, interrupted=True), 130),
    ],
)
def test_exit_codes_and_json(
    made: LoadReport,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "run", lambda *_: made)
    folder = tmp_path / "report"
    assert main(LoadtestOptions(url=URL, json=True, report=str(folder))) == code
    printed, complaints = capsys.readouterr()
    assert msgspec.json.decode(printed, type=LoadReport) == made
    assert complaints == ""
    assert reports.read(folder) == made
    assert main(LoadtestOptions(url=URL, report="")) == code
    assert "report:" not in capsys.readouterr().out


def test_without_a_name_the_folder_has_the_time_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "run", lambda *_: PASSED)
    assert main(LoadtestOptions(url=URL)) == 0
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("loadtest-20")
    assert {file.name for file in folder.iterdir()} == {"report.json", "report.html"}


def test_secrets_stay_out_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mynah", "loadtest", "ws://me:pass@h/x?key=1", "--token=secret"])
    said = module._command(LoadtestOptions(url="ws://me:pass@h/x?key=1", token="secret"))
    assert said == "mynah loadtest 'ws://…@h/x?…' '--token=…'"


def test_the_command_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["loadtest", URL, "--scenario", "one evening.yaml", "--report", "it's"]
    monkeypatch.setattr(sys, "argv", ["mynah", *words])
    said = module._command(LoadtestOptions(url=URL))
    assert shlex.split(said) == ["mynah", *words]
    # The name of a user is no reason to spoil other words.
    monkeypatch.setattr(sys, "argv", ["mynah", "loadtest", "ws://rate@h/x", "--rate", "5"])
    assert module._command(LoadtestOptions(url="ws://rate@h/x")) == "mynah loadtest 'ws://…@h/x' --rate 5"


def test_a_folder_that_cannot_be_written_is_said_before_the_test(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: object) -> LoadReport:
        raise AssertionError("it ran")

    monkeypatch.setattr(module, "run", run)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"cannot write .*--report"):
        main(LoadtestOptions(url=URL, report=str(tmp_path / "file" / "report")))


def test_a_test_that_cannot_begin_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def run(*_: object) -> LoadReport:
        raise ConfigError("nobody answers")

    monkeypatch.setattr(module, "run", run)
    (tmp_path / "kept").mkdir()
    for name in ("kept", "new/folder"):
        with pytest.raises(ConfigError, match="nobody answers"):
            main(LoadtestOptions(url=URL, report=str(tmp_path / name)))
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


@pytest.mark.parametrize("as_json", [True, False])
def test_what_was_measured_is_told_though_it_cannot_be_written(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*_: object) -> Path:
        raise ConfigError("the disk is full")

    monkeypatch.setattr(module, "run", lambda *_: PASSED)
    monkeypatch.setattr(reports, "write", write)
    with pytest.raises(ConfigError, match="the disk is full"):
        main(LoadtestOptions(url=URL, json=as_json, report=str(tmp_path)))
    printed = capsys.readouterr().out
    if as_json:
        assert msgspec.json.decode(printed, type=LoadReport) == PASSED
    else:
        assert "bottleneck: none" in printed
        assert "report:" not in printed


def test_looking_at_the_machine_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check(name="open files", ok=False, found="10", wanted="600", remedy="ulimit -n 600")]
    monkeypatch.setattr(module, "look", lambda *_: Machine(cores=2, checks=checks))
    assert main(LoadtestOptions(url=URL, check=True)) == 0
    assert "better not open files 10 (wanted: 600)" in " ".join(capsys.readouterr().out.split())
    checks[0] = msgspec.structs.replace(checks[0], fatal=True)
    assert main(LoadtestOptions(url=URL, check=True, json=True)) == 1
    assert json.loads(capsys.readouterr().out)["checks"][0]["remedy"] == "ulimit -n 600"


def looked(
    monkeypatch: pytest.MonkeyPatch, server: Callable[[str], int | None]
) -> list[tuple[str, int | None]]:
    """Return where is noted which address and process are looked at; ``server`` knows the processes."""
    found: list[tuple[str, int | None]] = []

    def look(target: str, _: object, options: LoadOptions) -> Machine:
        found.append((target, options.server_pid))
        return Machine(cores=2, checks=[Check(name="open files", ok=True, found="1000", wanted="600")])

    monkeypatch.setattr(module, "look", look)
    monkeypatch.setattr(module, "find_server", server)
    return found


def checks(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["checks"]
    return found


def test_the_check_is_about_the_address_that_ota_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = "ws://127.0.0.2:8000/xiaozhi/v1/?key=secret"
    found = looked(monkeypatch, lambda target: 7 if target == named else None)
    with ScriptedServer(silent, ota={"websocket": {"url": named}}).in_thread() as server:
        ota = server.ota_url.replace("http://", "http://me:secret@")
        assert main(LoadtestOptions(url=ota, check=True, json=True)) == 0
        assert server.connections == [], "it does not connect"
        assert len(server.ota_requests) == 1
    assert found == [(named, 7)]
    first, second = checks(capsys)
    assert (first["name"], first["ok"], second["name"]) == ("address", True, "open files")
    assert first["found"] == f"ws://127.0.0.2:8000/xiaozhi/v1/, as {server.ota_url} says"
    assert main(LoadtestOptions(url=URL, check=True, json=True)) == 0
    assert (found[-1][0], len(checks(capsys))) == (URL, 1), "a WebSocket address is what it is"


def test_behind_a_proxy_of_this_machine_the_check_is_about_who_answers_ota(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = looked(monkeypatch, lambda target: 7 if target.startswith("http") else None)
    for host in ("127.0.0.1:8000", "192.0.2.1"):  # the second one is another machine
        with ScriptedServer(silent, ota={"websocket": {"url": f"ws://{host}/"}}).in_thread() as server:
            main(LoadtestOptions(url=server.ota_url, check=True, json=True))
            main(LoadtestOptions(url=server.ota_url, check=True, json=True, pid=5))
    assert [pid for _, pid in found] == [7, 5, None, 5]


@pytest.mark.parametrize(
    ("ota", "why"),
    [
        (None, "nothing answers at"),
        ({"websocket": {"url": ""}}, "OTA answer without WebSocket address"),
        ({"websocket": {"url": "ws://h/"}, "activation": {"code": "1"}}, "OTA answer wants an activation"),
    ],
)
def test_without_an_answer_the_check_is_about_the_ota_address_and_says_so(
    ota: dict[str, Any] | None, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = looked(monkeypatch, lambda _: None)
    with ScriptedServer(silent, ota=ota).in_thread() as server:
        url = server.ota_url if ota is not None else "http://127.0.0.1:9/xiaozhi/ota/"
        url = url.replace("http://", "http://me:secret@")
        assert main(LoadtestOptions(url=url, check=True, json=True)) == 0, "it is no reason not to test"
    assert found == [(url, None)]
    first = checks(capsys)[0]
    assert (first["name"], first["ok"], first["fatal"]) == ("address", False, False)
    assert first["found"].startswith(
        f"only {url.replace('me:secret@', '')}, so the checks are about the way there: "
    )
    assert why in first["found"]
    assert "secret" not in json.dumps(first)
    assert "start the server" in first["remedy"]


def test_comparing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        reports.write(PASSED, tmp_path / name)
    both = (tmp_path / "a" / "report.json", tmp_path / "b")
    assert main(LoadtestOptions(compare=both, report=str(tmp_path / "c"))) == 0
    page = capsys.readouterr().out.removeprefix("comparison: ").strip()
    assert Path(page).is_file()
    with pytest.raises(ConfigError, match="needs a folder"):
        main(LoadtestOptions(compare=both, report=""))


def test_a_summary_ends_with_what_to_do_next() -> None:
    console = Console(file=io.StringIO(), width=200)
    made = msgspec.structs.replace(
        PASSED,
        passed=False,
        reasons=["step 1: [x] failed"],
        knee=Knee(step=2, devices=400, talkers=40, sign="the first audio doubled"),
        bottleneck=Bottleneck.SERVER_CORE,
        evidence="98 % of a core",
        warnings=[Warned(at_s=3.2, text="[swap] is used")],
    )
    summarise(made, console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "knee: good up to 400 devices (40 talking); then the first audio doubled" in lines
    assert "bottleneck: one core: 98 % of a core" in lines
    assert "warning at 3 s: [swap] is used" in lines
    assert "not passed: step 1: [x] failed" in lines
    assert lines[-1] == f"next: {_ADVICE[Bottleneck.SERVER_CORE]}"
    assert set(_ADVICE) == set(Bottleneck)


def test_mistakes_end_with_2() -> None:
    for arguments in (["loadtest", URL, "--mode", "psychic"], ["loadtest", URL, "--devices", "0"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2
    done = subprocess.run(
        [sys.executable, "-m", "mynah.cli", "loadtest", URL, "--scenario", "nothing"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("mynah: there is no scenario 'nothing'")
    assert done.stdout == ""


@pytest.mark.e2e
def test_the_whole_command(tmp_path: Path) -> None:
    with ScriptedServer(silent).in_thread() as server:
        done = subprocess.run(
            [
                sys.executable, "-m", "mynah.cli", "loadtest", server.ws_url, "--steps", "3", "--duration", "1",
                "--report", str(tmp_path / "report"),
            ],
            check=False, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
    assert "step 1 (3 devices): passed" in done.stderr
    *_, advice, page = done.stdout.splitlines()
    assert advice.startswith("next: ")
    assert page == f"report: {tmp_path / 'report' / 'report.html'}"
    assert done.returncode == 0
    assert reports.read(tmp_path / "report").steps[0].connected == 3
