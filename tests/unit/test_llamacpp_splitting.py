"""A long prompt is cut only where its tokens cannot tell."""

import pytest

from rbee_plugins.llamacpp.splitting import pieces


@pytest.mark.parametrize(
    ("text", "specials", "expected"),
    [
        (b"", [b"<s>"], [b""]),
        (b"no marks at all here", [b"<s>"], [b"no marks at all here"]),
        (b"abc<s>defgh<s>i", [], [b"abc<s>defgh<s>i"]),
        (b"abcdef<s>gh<s>ijkl<s>m", [b"<s>"], [b"abcdef", b"<s>gh", b"<s>ijkl", b"<s>m"]),
        (b"abcd<|a|><|b|>efgh", [b"<|b|>", b"|><|"], [b"abcd<|a", b"|><|b|>efgh"]),
    ],
)
def test_a2_pieces_begin_with_a_special_token_that_no_other_stands_across(
    text: bytes, specials: list[bytes], expected: list[bytes]
) -> None:
    found = list(pieces(text, specials, size_bytes=4))
    assert found == expected
    assert b"".join(found) == text
