"""The `[model.NAME]` sections of config.toml, read and checked: every wrong field is named with its line."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rbee_core import small_files
from rbee_core.domain import model_ref
from rbee_core.domain.model_settings import ModelSettings, WrongField, read
from rbee_core.errors import InvalidRequest, shorten
from rbee_core.settings import Settings

TEMPLATE_BYTES = 1 << 17
CORRECT = "docs/reference/settings.md says what a model's section may hold"


def read_sections(settings: Settings) -> dict[str, ModelSettings]:
    """Return what each section says, with the templates that they name. Reads files.

    Raises `InvalidRequest` for the first field that is wrong, by its line.
    """
    return {name: _section(name, section, settings) for name, section in settings.sections.items()}


def _section(name: str, section: Mapping[str, Any], settings: Settings) -> ModelSettings:
    _check_name(name, settings)
    try:
        found = read(_with_template(section, settings.home))
    except WrongField as wrong:
        where = settings.file.place("model", name, wrong.name)
        raise InvalidRequest(f"{where} {wrong.why}", hint=CORRECT) from None
    if found.idle_timeout_s is not None and not math.isfinite(found.idle_timeout_s):
        raise InvalidRequest(f"{settings.file.place('model', name, 'idle_timeout_s')} must be finite", hint=CORRECT)
    return found


def _check_name(name: str, settings: Settings) -> None:
    """Refuse a section that nobody could ask for: it would be ignored without a word."""
    try:
        model_ref.parse(name, settings.models)
    except InvalidRequest as error:
        where = settings.file.place("model", name)
        if name in settings.models:
            raise InvalidRequest(f"{where}: {error.message}", hint=error.hint) from None
        raise InvalidRequest(
            f"{where} has no reference, and {shorten(name)} is neither an alias nor a reference itself",
            hint='add a line such as reference = "hf:org/repo:Q4_K_M"',
        ) from None


def _with_template(section: Mapping[str, Any], home: Path) -> Mapping[str, Any]:
    """Return the section with the text of the template that it names; a relative path starts in RBEE_HOME."""
    if "chat_template" not in section:
        return section
    named = section["chat_template"]
    if not isinstance(named, str) or not named:
        raise WrongField("chat_template", "must be the path of a file")
    try:
        data, _ = small_files.read(home / Path(named).expanduser(), TEMPLATE_BYTES)
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise WrongField("chat_template", f"names {shorten(named)}, which is not UTF-8") from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise WrongField("chat_template", f"names {shorten(named)}, which cannot be read: {why}") from None
    return {**section, "chat_template": text}
