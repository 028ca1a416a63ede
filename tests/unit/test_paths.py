"""`safe_child`: nothing that anybody can write leads out of the base."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbee_core.errors import InvalidRequest
from rbee_core.models.paths import safe_child

_HOSTILE = [
    "..", ".", "", "/", "/etc", "a/b", "..\\x", "%2e%2e", "..%2f", "C:", "\\\\host\\share", "a\x00b",
    "a" * 97, "a" * 4096,
    "\uff0e\uff0e", "\u2025", ".hidden", "-rf", "a..b", "CON", "nul.gguf", "com1", "LPT9.txt", "a ", "a.", "a\n", "é",
]  # fmt: skip


@pytest.mark.parametrize("part", _HOSTILE)
def test_hostile_parts_are_refused(part: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        safe_child(tmp_path, "models", part)


def test_ordinary_names_become_paths(tmp_path: Path) -> None:
    assert (
        safe_child(tmp_path, "org", "Repo-1.5_b", "a.Q4_K_M.gguf")
        == tmp_path.resolve() / "org/Repo-1.5_b/a.Q4_K_M.gguf"
    )
    assert safe_child(tmp_path, "console.gguf").name == "console.gguf"


def test_no_part_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        safe_child(tmp_path)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "link").symlink_to(tmp_path)
    (tmp_path / "base" / "self").symlink_to(tmp_path / "base")
    for parts in (("link", "x"), ("link",), ("self",)):
        with pytest.raises(InvalidRequest):
            safe_child(tmp_path / "base", *parts)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.one_of(st.text(max_size=20), st.sampled_from(_HOSTILE), st.text("a.-_/\\", max_size=6)), max_size=4))
def test_whatever_is_let_through_lies_below_the_base(tmp_path: Path, parts: list[str]) -> None:
    try:
        path = safe_child(tmp_path, *parts)
    except InvalidRequest:
        return
    assert path.relative_to(tmp_path.resolve()).parts == tuple(parts)
