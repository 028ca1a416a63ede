"""The edge: every error becomes a sentence and an exit code, once."""

import click
import pytest

from rbee_core.errors import AllSlotsBusy, InvalidRequest, PromptTooLong, RbeeError, RemoteError, WorkerNotFound
from rbee_core.keeper.interrupt import Interrupted, Interrupts
from rbee_core.keeper.main import COMMANDS, cli, run


def failing_with(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RbeeError("It broke", hint="mend it"), 1),
        (WorkerNotFound(worker_id="worker-x"), 1),
        (InvalidRequest("No"), 2),
        (PromptTooLong(prompt_tokens=9, context_tokens=8), 2),
        (AllSlotsBusy(slots=1, busy=1), 75),
        (RemoteError(code="ALL_SLOTS_BUSY", message="Busy", http_status=503, details={}), 75),
        (RemoteError(code="INVALID_REQUEST", message="No", http_status=400, details={"hint": "do"}), 2),
        (RemoteError(code="SOMETHING_NEW", message="Hm", http_status=500, details={}), 1),
    ],
)
def test_our_errors_become_sentence_hint_and_exit_code(
    error: RbeeError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([], failing_with(error)) == code

    hint = f"hint: {error.hint}\n" if error.hint else ""
    assert capsys.readouterr() == ("", f"error: {error.message}\n{hint}")


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], failing_with(KeyboardInterrupt())) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_refusal_of_the_system_is_no_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([], failing_with(OSError(28, "No space left on device"))) == 1

    assert "error: The system refused: [Errno 28] No space left on device" in capsys.readouterr().err


def test_our_bug_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RBEE_DEBUG", raising=False)

    assert run([], failing_with(ZeroDivisionError("by zero"))) == 1

    err = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in err
    assert "this is a bug" in err
    assert "Traceback" not in err


def test_traceback_of_our_bug_is_there_for_the_asking(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RBEE_DEBUG", "1")

    run([], failing_with(ZeroDivisionError("by zero")))

    assert "Traceback" in capsys.readouterr().err


def test_exit_code_of_a_command_is_passed_on() -> None:
    command = click.Command("x", callback=lambda: 5)

    assert run([], command) == 5


@pytest.mark.parametrize("arguments", [["--nonsense"], ["infer", "--device", "x"], ["infer", "--nonsense"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert "Error:" in capsys.readouterr().err


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0

    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_in_the_list_is_the_help_of_the_command(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.name == name
    assert command.get_short_help_str(200) == COMMANDS[name][1]


def test_second_signal_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[object] = []

    def leave(code: int) -> None:
        ended.append(code)
        raise SystemExit

    monkeypatch.setattr("os._exit", leave)
    state = Interrupts()
    state.at_once = lambda: ended.append("killed")

    with pytest.raises(Interrupted) as first:
        state.handle(15, None)
    with pytest.raises(SystemExit):
        state.handle(2, None)

    assert first.value.exit_code == 143
    assert ended == ["killed", 130]
