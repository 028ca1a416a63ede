"""GBNF as it is translated: the notation, what becomes a terminal, and what is refused with its line."""

import pytest

from rbee_core.errors import InvalidRequest
from rbee_plugins.llamacpp.gbnf import DEPTH_LIMIT, NESTING_LIMIT, PARTS_LIMIT, as_lark

JSON = r"""
# llama.cpp's own example
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""


def chain(count: int, last: str = '"a"') -> str:
    """Return `count` rules, each of which leads to the next."""
    names = ["root", *(f"a{number:x}" for number in range(1, count))]
    bodies = [*names[1:], last]
    return "\n".join(f"{name}::={body}" for name, body in zip(names, bodies, strict=True))


def rules(grammar: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in as_lark(grammar).splitlines())


def test_a_regular_grammar_is_one_terminal():
    assert rules('root ::= "ab" | [0-9]{2,} x?\nx ::= .') == {
        "start": "T0",
        "T0": r"(/\u{61}\u{62}/ | (/[\u{30}-\u{39}]/){2,} (R1){0,1})",
        "R1": "/(?s:.)/",
    }


def test_what_stands_together_in_a_recursive_rule_is_one_terminal():
    found = rules('root ::= "(" w root w ")" | "x"\nw ::= " "*')
    assert found["start"] == "(T0 start T1 | T2)"
    assert found["T0"] == r"/\u{28}/ R1"
    assert found["T1"] == r"R1 /\u{29}/"


def test_json_is_read():
    found = rules(JSON)
    assert {name for name in found if name[0] == "R"} == {"R4", "R5", "R6"}, "string, number and ws are regular"
    assert r"[^\u{22}\u{5c}\u{7f}\u{0}-\u{1f}]" in found["R4"]


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        ("", "no rule root"),
        ('start ::= "a"', "no rule root"),
        ("root ::= other", "no rule other"),
        ('root ::= "a', "in line 1.*ends within"),
        ('root ::= "a"\nx ::= [', "in line 2.*ends within"),
        ("root ::= [z-a]", "ends before it begins"),
        ("root ::= []", "empty"),
        (r'root ::= "\q"', "unknown escape"),
        (r'root ::= "\ud800"', "no character"),
        ("root = x", "::= is expected"),
        ('root ::= ("a"', r"\) is expected"),
        ('root ::= "a")', "does not belong"),
        ("root ::= <think>", "tokens by name"),
        ('root ::= "a"{3000}', "more than 2000 times"),
        ("root ::= " + "(" * (DEPTH_LIMIT + 1) + '"a"' + ")" * (DEPTH_LIMIT + 1), "deep"),
        ("root ::= " + "(" * 60_000, "deep"),
        ("root ::= " + '"a" ' * (PARTS_LIMIT + 1), "parts"),
        ('root ::= "a"' + "*" * 2000, "deep"),
        (chain(NESTING_LIMIT + 1), f"rules together are nested more than {NESTING_LIMIT} deep"),
        (chain(NESTING_LIMIT + 1, '"a" root | "b"'), "rules together"),
        ("\n".join(f"a{n}::=((a{n + 1}))" for n in range(NESTING_LIMIT // 2)), "rules together"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(grammar, why):
    with pytest.raises(InvalidRequest, match=why):
        as_lark(grammar)


def test_rules_that_lead_to_one_another_are_regular_however_many():
    found = rules(chain(NESTING_LIMIT))
    assert len(found) == NESTING_LIMIT + 1
    assert all(name[0] in "RTs" for name in found), "none is recursive"
