"""Settings: where a value comes from, and what is refused."""

import os
from pathlib import Path
from typing import get_args

import pytest

from rbee_core.errors import HomeUnusable, InvalidRequest, RbeeError
from rbee_core.settings import ALIASES, CHOICES, DEFAULT_PORT, NAMES, Settings, again, load


def write_config(home: Path, text: str) -> dict[str, str]:
    (home / "config.toml").write_text(text)
    (home / "config.toml").chmod(0o600)
    return {"RBEE_HOME": str(home)}


def test_defaults(tmp_path: Path) -> None:
    settings = load({"RBEE_HOME": str(tmp_path)})
    assert settings == Settings(home=tmp_path)
    assert (settings.host, settings.port) == ("127.0.0.1", DEFAULT_PORT)
    assert settings.models == ALIASES


def test_later_places_win(tmp_path: Path) -> None:
    environ = write_config(tmp_path, "port = 1\nidle_timeout_s = 1\nprobe_interval_s = 1")
    settings = load(environ | {"RBEE_PORT": "2", "RBEE_IDLE_TIMEOUT_S": "2.5"}, port=3, host=None)
    assert (settings.port, settings.idle_timeout_s, settings.probe_interval_s) == (3, 2.5, 1.0)
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RBEE_HOME": "/srv/rbee"}, Path("/srv/rbee")),
        ({"RBEE_HOME": "~/pool", "HOME": "/home/ada"}, Path("/home/ada/pool")),
        ({"RBEE_HOME": "", "HOME": "/home/ada"}, Path("/home/ada/.rbee")),
        ({"HOME": "/home/ada"}, Path("/home/ada/.rbee")),
    ],
)
def test_home(environ: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", environ.get("HOME", "/"))
    assert load(environ).home == expected


def test_home_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load({"RBEE_HOME": "here"}).home == tmp_path / "here"


def test_empty_variables_count_as_unset(tmp_path: Path) -> None:
    assert load({"RBEE_HOME": str(tmp_path), "RBEE_PORT": "", "RBEE_API_KEY": ""}) == Settings(home=tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_can_come_from_everywhere(name: str, tmp_path: Path) -> None:
    default = getattr(Settings(home=tmp_path), name)
    value = CHOICES.get(name, ("word",))[-1] if isinstance(default, str) else 5
    converted = value if default is None else type(default)(value)
    quoted = f'"{value}"' if isinstance(default, str) else value
    assert getattr(load(write_config(tmp_path, f"{name} = {quoted}")), name) == converted
    (tmp_path / "config.toml").unlink()
    assert getattr(load({"RBEE_HOME": str(tmp_path), f"RBEE_{name.upper()}": str(value)}), name) == converted
    assert getattr(load({"RBEE_HOME": str(tmp_path)}, **{name: value}), name) == converted


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("PORT", "http"),
        ("PORT", "-1"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("PORT", "9" * 5000),
        ("IDLE_TIMEOUT_S", "soon"),
        ("IDLE_TIMEOUT_S", "nan"),
        ("IDLE_TIMEOUT_S", "inf"),
        ("IDLE_TIMEOUT_S", "1e999"),
        ("IDLE_TIMEOUT_S", "-0.1"),
        ("BODY_LIMIT_BYTES", "2MB"),
        ("THREADS", "0x10"),
    ],
)
def test_bad_values_in_the_environment(name: str, raw: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"RBEE_{name}") as caught:
        load({"RBEE_HOME": str(tmp_path), f"RBEE_{name}": raw})
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", r"config\.toml line 1: prot is no setting; did you mean port\?"),
        ("home = '/x'", "home is no setting$"),
        ("port = true", "port must be a number"),
        ("idle_timeout_s = true", "idle_timeout_s must be a number"),
        ("port = [1]", "port must be a number"),
        ("host = 5", "host must be a text"),
        ("host = ['a']", "host must be a text"),
        ("idle_timeout_s = nan", "finite"),
        ("idle_timeout_s = 1" + 400 * "0", "idle_timeout_s must be a"),
        ("port = " + 5000 * "9", "port|TOML"),
        ("port =", "not valid TOML"),
        ("a = \x00", "not valid TOML"),
        ("models = 5", "line 1: models must be a table"),
        ('[models]\nok = "/m.gguf"\n\ntiny = 5', r"config\.toml line 4: \[models\] tiny must be the reference"),
        ("port = 1\n# host = 4\nhost = 5", r"config\.toml line 3: host must be a text"),
        ("model = 5", "line 1: model must be a table"),
        ("[model]\na = 5", r"line 2: \[model\] a must be a table"),
        ("[model.ada]\nreference = 5", r"line 2: \[model\.ada\] reference must be the reference"),
    ],
)
def test_bad_config_file(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=message):
        load(write_config(tmp_path, text))


def test_config_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"host = '\xff'")
    with pytest.raises(InvalidRequest, match="not valid TOML"):
        load({"RBEE_HOME": str(tmp_path)})


def test_config_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(HomeUnusable, match=r"config\.toml"):
        load({"RBEE_HOME": str(tmp_path)})


def test_home_of_an_unknown_user() -> None:
    with pytest.raises(RbeeError, match="nobody-of-that-name"):
        load({"RBEE_HOME": "~nobody-of-that-name/x"})


def test_a_bad_flag_is_named_as_it_is_typed(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="--idle-timeout-s must be a finite number"):
        load({"RBEE_HOME": str(tmp_path)}, idle_timeout_s=float("nan"))


def test_aliases_are_added_to_the_built_in_ones(tmp_path: Path) -> None:
    settings = load(write_config(tmp_path, '[models]\nmine = "/m.gguf"\nsmollm2 = "org/other"'))
    assert settings.models == {**ALIASES, "mine": "/m.gguf", "smollm2": "org/other"}


def test_no_representation_shows_the_key(tmp_path: Path) -> None:
    assert "hush" not in repr(load({"RBEE_HOME": str(tmp_path), "RBEE_API_KEY": "hush"}))


def test_b7_a_pipe_in_the_place_of_the_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.toml")
    with pytest.raises(HomeUnusable, match=r"config\.toml: it is no regular file"):
        load({"RBEE_HOME": str(tmp_path)})


def test_b10_a_file_that_is_nested_too_deep_is_no_bug(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is not valid TOML"):
        load(write_config(tmp_path, f"port = {'[' * 5000}{']' * 5000}"))


def test_b5_a_home_that_no_answer_can_name_is_refused() -> None:
    with pytest.raises(HomeUnusable, match="not valid UTF-8"):
        load({"RBEE_HOME": "/tmp/rbee-\udcff"})


@pytest.mark.parametrize("key", ["ké", "a\udcffb", "two\nlines", "two words", "\x7f"])
def test_b10_a_key_that_no_client_can_send_is_refused_and_not_shown(key: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="RBEE_API_KEY has characters that no client can send") as refused:
        load({"RBEE_HOME": str(tmp_path), "RBEE_API_KEY": key})
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SHUTDOWN_GRACE_S", "1e300"),
        ("REQUEST_TIMEOUT_S", "1e308"),
        ("WORKER_START_TIMEOUT_S", "1e10"),
        ("THREADS", "513"),
    ],
)
def test_b10_c11_more_than_any_clock_or_engine_can_count_is_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"RBEE_{name} must be between 0 and "):
        load({"RBEE_HOME": str(tmp_path), f"RBEE_{name}": value})


@pytest.mark.parametrize("name", ["connect_timeout_s", "request_timeout_s", "worker_start_timeout_s"])
def test_c11_no_time_at_all_is_the_default(name: str, tmp_path: Path) -> None:
    environ = {"RBEE_HOME": str(tmp_path), f"RBEE_{name.upper()}": "0"}
    assert getattr(load(environ), name) == getattr(Settings(home=tmp_path), name)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_b13_a_key_that_others_may_read_is_refused(mode: int, tmp_path: Path) -> None:
    environ = write_config(tmp_path, 'api_key = "secret"')
    (tmp_path / "config.toml").chmod(mode)
    with pytest.raises(InvalidRequest, match="other users of this machine may read it") as refused:
        load(environ)
    assert refused.value.hint == f"chmod 600 {tmp_path / 'config.toml'}"


def test_b13_a_file_without_a_key_may_be_read_by_all(tmp_path: Path) -> None:
    environ = write_config(tmp_path, "port = 5")
    (tmp_path / "config.toml").chmod(0o644)
    assert load(environ).port == 5


def test_a_queue_that_holds_nobody_would_refuse_every_cold_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="RBEE_QUEUE_LIMIT must be 1 or more"):
        load({"RBEE_HOME": str(tmp_path), "RBEE_QUEUE_LIMIT": "0"})


def test_how_a_cache_may_be_kept_is_what_a_worker_may_be_asked_for() -> None:
    from rbee_core.domain.tuning import CacheType

    assert CHOICES["cache_type_k"] == CHOICES["cache_type_v"] == get_args(CacheType)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_a_word_that_is_no_choice_is_refused_with_those_that_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=rf"RBEE_{name.upper()} must be one of .*{CHOICES[name][0]}.*, not 'q9'"):
        load({"RBEE_HOME": str(tmp_path), f"RBEE_{name.upper()}": "q9"})


def test_an_error_names_the_line_on_which_its_value_begins(tmp_path: Path) -> None:
    lines = (
        '[model.ada]', 'system_prompt = """', 'slots = 9', '[model.bob]', '"""', "", "# slots", "slots = 3", "lora = [",
        '  {path = "/a"},', "]",
    )  # fmt: skip
    text = "\n".join(lines)
    file = load(write_config(tmp_path, text)).file
    assert file.place("model", "ada", "slots") == "config.toml line 8: [model.ada] slots"
    assert file.place("model", "ada", "system_prompt") == "config.toml line 2: [model.ada] system_prompt"
    assert file.place("model", "ada", "lora") == "config.toml line 9: [model.ada] lora"
    assert file.place("model", "ada") == "config.toml line 1: [model] ada"
    assert file.place("host") == "config.toml: host"


def test_a_section_with_a_reference_is_an_alias(tmp_path: Path) -> None:
    text = (
        '[models]\nada = "/old.gguf"\nbob = "/b.gguf"\n[model.ada]\nreference = "/new.gguf"\n[model.smollm2]\nslots = 2'
    )
    settings = load(write_config(tmp_path, text))
    assert settings.models == {**ALIASES, "bob": "/b.gguf", "ada": "/new.gguf"}
    assert settings.sections == {"ada": {"reference": "/new.gguf"}, "smollm2": {"slots": 2}}


def test_the_file_is_read_again_and_what_outranks_it_stays(tmp_path: Path) -> None:
    environ = write_config(tmp_path, "port = 1\nidle_timeout_s = 1\nqueue_limit = 3")
    settings = load(environ | {"RBEE_PORT": "2"}, idle_timeout_s=5)
    write_config(tmp_path, "port = 7\nidle_timeout_s = 7\nqueue_limit = 7")
    later = again(settings)
    assert (later.port, later.idle_timeout_s, later.queue_limit) == (2, 5, 7)
    write_config(tmp_path, "queue_limit = 0")
    with pytest.raises(InvalidRequest, match=r"config\.toml line 1: queue_limit must be 1 or more"):
        again(settings)


@pytest.mark.parametrize("text", ["prot = 1", "port = true", "port =", "[model]\nx = 5", "[models]\nx = 5"])
def test_n19_a_wrong_file_does_not_hide_a_hive_that_runs(text: str, tmp_path: Path) -> None:
    environ = write_config(tmp_path, f"shutdown_grace_s = 7\n{text}\n")
    settings = load(environ, forgiving=True)
    assert settings.home == tmp_path
    assert settings.shutdown_grace_s == (30 if text == "port =" else 7)


def test_n19_a_variable_that_is_nearly_a_setting_is_refused(tmp_path: Path) -> None:
    environ = {"RBEE_HOME": str(tmp_path), "RBEE_OF_A_PLUGIN": "x", "RBEE_DEBUG": "1"}
    load(environ)
    with pytest.raises(InvalidRequest, match=r"RBEE_CONTEXT_TOKEN in .* did you mean context_tokens\?"):
        load(environ | {"RBEE_CONTEXT_TOKEN": "600"})
