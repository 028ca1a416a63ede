"""What `rbee infer` refuses before anything is started, and what it sends."""

import io
import os
from pathlib import Path
from typing import Any

import click
import pytest

from rbee_core.domain.tuning import Tuning
from rbee_core.errors import InvalidRequest, PayloadTooLarge
from rbee_core.keeper.infer_options import build_inference, build_spawn, check_timeout, model_for, read_prompt
from rbee_core.settings import Settings

SETTINGS = Settings(home=Path("/nowhere"))
NOTHING_GIVEN: dict[str, Any] = {
    **dict.fromkeys(("system", "max_tokens", "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed")),
    **dict.fromkeys(
        ("backend", "device", "context", "slots", "timeout", "logprobs", "grammar", "json_schema", "regex")
    ),
    "sampling": (),
    "model": "smollm2",
    "node": "localhost",
    "text": (),
    "prompt": "Hello",
    "chat": False,
    "raw": False,
    "as_json": False,
    "stop": (),
    "lora": (),
}


def options(**given: Any) -> dict[str, Any]:
    return {**NOTHING_GIVEN, **given}


def test_m2_a_prompt_is_answered_where_there_is_a_template() -> None:
    request = build_inference(options(prompt=" Once ", seed=7, stop=("\n",), timeout=3.0), SETTINGS)

    assert (request.prompt, request.messages, request.chat_template) == (" Once ", None, "if_any")
    assert (request.seed, request.stop, request.timeout_s) == (7, ["\n"], 3.0)


def test_m2_a_raw_prompt_is_continued() -> None:
    request = build_inference(options(raw=True), SETTINGS)

    assert (request.prompt, request.chat_template) == ("Hello", None)


def test_m2_a_prompt_needs_no_option() -> None:
    assert build_inference(options(prompt=None, text=("hello",)), SETTINGS).prompt == "hello"
    with pytest.raises(click.UsageError, match="two prompts"):
        build_inference(options(text=("hello",)), SETTINGS)
    with pytest.raises(click.UsageError, match="in quotes"):
        build_inference(options(prompt=None, text=("hello", "world")), SETTINGS)


@pytest.mark.parametrize("chat", [{"chat": True}, {"system": "Be brief"}])
def test_m2_raw_and_chat_exclude_each_other(chat: dict[str, Any]) -> None:
    with pytest.raises(click.UsageError, match="give one of them"):
        build_inference(options(raw=True, **chat), SETTINGS)


def test_chat_sends_messages() -> None:
    request = build_inference(options(chat=True), SETTINGS)

    assert (request.prompt, request.chat_template) == (None, "required")
    assert [(m.role, m.content) for m in request.messages or ()] == [("user", "Hello")]


def test_system_message_implies_chat() -> None:
    request = build_inference(options(system="Be brief"), SETTINGS)

    assert [m.role for m in request.messages or ()] == ["system", "user"]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"temperature": float("nan")}, "--temperature"),
        ({"temperature": 2.1}, "--temperature"),
        ({"temperature": -0.1}, "--temperature"),
        ({"top_p": 1.5}, "--top-p"),
        ({"min_p": float("inf")}, "--min-p"),
        ({"top_k": -1}, "--top-k"),
        ({"repeat_penalty": 0.0}, "--repeat-penalty"),
        ({"seed": -1}, "--seed"),
        ({"seed": 1 << 32}, "--seed"),
        ({"max_tokens": 0}, "--max-tokens"),
        ({"timeout": 0.0}, "--timeout"),
        ({"timeout": float("nan")}, "--timeout"),
        ({"stop": ("",)}, "--stop"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"prompt": " \n", "chat": True}, "prompt is empty"),
        ({"prompt": "\udcff"}, "--prompt"),
        ({"system": "\udcff"}, "--system"),
    ],
)
def test_what_cannot_work_is_a_usage_error_that_names_the_option(given: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build_inference(options(**given), SETTINGS)

    assert names in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"device": -1}, "--device"),
        ({"context": 0}, "--context"),
        ({"slots": 0}, "--slots"),
        ({"backend": "x" * 65}, "--backend"),
    ],
)
def test_bad_placement_is_refused_too(given: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidRequest, match=names):
        build_spawn(options(**given), SETTINGS)


@pytest.mark.parametrize("node", ["localhost", "far.example", "far.example:7000"])
@pytest.mark.parametrize(
    "model", ["smollm2", "hf:org/repo:Q4_K_M", "org/repo", "pkg:demo/Demo.gguf", "file:///m/a.gguf"]
)
def test_what_was_typed_is_sent_and_the_node_says_what_it_means(model: str, node: str) -> None:
    assert model_for(model, node, SETTINGS) in (model, "file:/m/a.gguf")


@pytest.mark.parametrize("node", ["localhost", "localhost:7000", "127.0.0.1:7835", "[::1]:7835"])
def test_path_is_made_absolute_where_it_was_typed(node: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert model_for("sub/../model.gguf", node, SETTINGS) == f"file:{tmp_path / 'model.gguf'}"
    assert model_for("~/model.gguf", node, SETTINGS) == f"file:{Path.home() / 'model.gguf'}"
    assert model_for("file:///m/a.gguf", node, SETTINGS) == "file:/m/a.gguf"


def test_m11_a_folder_needs_no_dot_and_slash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "repo").mkdir()

    assert model_for("folder", "localhost", SETTINGS) == f"file:{tmp_path / 'folder'}"
    assert model_for("org/repo", "localhost", SETTINGS) == "org/repo"
    with pytest.raises(InvalidRequest, match="no known alias"):
        model_for("other", "localhost", SETTINGS)


def test_alias_that_looks_like_a_path_is_an_alias() -> None:
    mine = Settings(home=Path("/nowhere"), models={"./mine.gguf": "org/repo"})

    assert model_for("./mine.gguf", "localhost", mine) == "./mine.gguf"


@pytest.mark.parametrize("model", ["model.gguf", "./folder", "../a.gguf", "~/a.gguf", "file:a.gguf", "file:~/a.gguf"])
def test_path_that_means_nothing_on_another_node_is_refused_with_a_hint(model: str) -> None:
    with pytest.raises(InvalidRequest, match="means nothing on far") as caught:
        model_for(model, "far:7835", SETTINGS)

    assert "absolute path" in caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("model", ["/m/a.gguf", "file:///m/a.gguf", "file:/m/a.gguf"])
def test_absolute_path_of_another_node_is_sent_as_it_is(model: str) -> None:
    assert model_for(model, "far", SETTINGS) == model


@pytest.mark.parametrize("model", ["", "no such alias", "hf:..", "a\nb", "x" * 2000, "\udcff"])
def test_bad_model_reference_is_refused(model: str) -> None:
    with pytest.raises(InvalidRequest):
        model_for(model, "localhost", SETTINGS)


class Keyboard(io.BytesIO):
    def isatty(self) -> bool:
        return True


def test_prompt_is_read_from_a_pipe_without_its_last_newline() -> None:
    assert read_prompt(io.BytesIO("Grüße\n\n".encode()), 100, forced=False) == "Grüße\n"


def test_person_at_the_keyboard_is_not_made_to_wait() -> None:
    with pytest.raises(click.UsageError, match="no prompt"):
        read_prompt(Keyboard(), 100, forced=False)
    with pytest.raises(click.UsageError):
        read_prompt(None, 100, forced=True)
    assert read_prompt(Keyboard(b"typed"), 100, forced=True) == "typed"


def test_endless_stdin_is_not_read_to_its_end() -> None:
    with Path(os.devnull.replace("null", "zero")).open("rb") as endless, pytest.raises(PayloadTooLarge):
        read_prompt(endless, 1000, forced=False)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="not UTF-8"):
        read_prompt(io.BytesIO(b"ab\xff"), 100, forced=False)


def test_b10_a_home_folder_of_nobody_is_a_mistake_and_no_bug() -> None:
    with pytest.raises(InvalidRequest, match="there is no such home folder"):
        model_for("~nosuchuser/x.gguf", "localhost", SETTINGS)


def test_b10_a_backend_that_is_no_text_is_a_mistake_and_no_bug() -> None:
    with pytest.raises(InvalidRequest, match="Invalid --backend: it is not valid UTF-8"):
        build_spawn(options(backend="\udcff"), SETTINGS)


@pytest.mark.parametrize("timeout", [-1.0, 0.0, float("nan"), float("inf"), 1e308])
def test_b6_a_time_that_nobody_can_wait_is_refused_before_anything_is_waited_for(timeout: float) -> None:
    with pytest.raises(InvalidRequest, match="Invalid --timeout"):
        check_timeout(options(timeout=timeout))


def test_log_probabilities_that_nobody_would_see_are_refused() -> None:
    assert build_inference(options(logprobs=2, as_json=True), SETTINGS).logprobs == 2
    with pytest.raises(click.UsageError, match="give --json too"):
        build_inference(options(logprobs=0), SETTINGS)


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("/a/b.gguf", "/a/b.gguf", 1.0),
        ("/a/b.gguf:0.5", "/a/b.gguf", 0.5),
        ("/a/b:c.gguf", "/a/b:c.gguf", 1.0),
        ("/a/b:2:-1", "/a/b:2", -1.0),
        ("b.gguf", str(Path.cwd() / "b.gguf"), 1.0),
    ],
)
def test_an_adapter_is_a_path_and_how_much_it_counts(text: str, path: str, scale: float) -> None:
    [adapter] = build_spawn(options(lora=(text,)), SETTINGS).tuning.lora
    assert (adapter.path, adapter.scale) == (path, scale)


@pytest.mark.parametrize("text", ["", ":2", "/a:1000", "/a:nan"])
def test_an_adapter_that_is_none_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(InvalidRequest, match="Invalid --lora"):
        build_spawn(options(lora=(text,)), SETTINGS)


def test_a_relative_path_of_an_adapter_means_nothing_on_another_node() -> None:
    with pytest.raises(InvalidRequest, match="means nothing on mac"):
        build_spawn(options(lora=("b.gguf",), node="mac"), SETTINGS)
    [adapter] = build_spawn(options(lora=("/b.gguf",), node="mac"), SETTINGS).tuning.lora
    assert adapter.path == "/b.gguf"


def test_no_adapter_says_nothing() -> None:
    assert build_spawn(options(), SETTINGS).tuning == Tuning()
