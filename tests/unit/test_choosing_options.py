"""What `rbee infer` makes of the options that say how tokens are chosen."""

from pathlib import Path
from typing import Any

import click
import pytest

from rbee_core import wire
from rbee_core.backend import needs
from rbee_core.errors import InvalidRequest
from rbee_core.keeper.choosing_options import COMMON, FILE_BYTES, RARE, choosing, rare
from rbee_core.keeper.commands.infer import SECTIONS, infer
from rbee_core.keeper.infer_options import build_inference
from rbee_core.settings import Settings
from tests.unit.test_infer_options import options

SETTINGS = Settings(home=Path("/nowhere"))


def built(**given: Any) -> wire.InferenceRequest:
    return build_inference(options(**given), SETTINGS)


def test_every_way_to_choose_can_be_said() -> None:
    said = {*COMMON, *RARE, "grammar", "json_schema"}
    of_other_commands = {name for word in ("infill", "embeddings", "rerank", "tools") for name in needs.WORDS[word]}
    assert needs.FIELDS - of_other_commands <= said
    assert said <= set(wire.InferenceRequest.__struct_fields__)


def test_rare_ones_are_set_by_name() -> None:
    request = built(sampling=("mirostat=2", "min_tokens=5", "ignore_eos=true", 'logit_bias={"28": -100}'))
    assert (request.mirostat, request.min_tokens, request.ignore_eos) == (2, 5, True)
    assert request.logit_bias == {28: -100}
    assert built(sampling=('dry_breakers=["x"]',)).dry_breakers == ("x",)


@pytest.mark.parametrize("setting", ["bees=1", "mirostat", "=1", "temperature=1"])
def test_an_unknown_name_is_refused_and_the_known_ones_are_told(setting: str) -> None:
    with pytest.raises(InvalidRequest, match="is no NAME=VALUE") as refused:
        rare([setting])
    assert "frequency_penalty" in refused.value.hint


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sampling": ("mirostat=7",)}, "Invalid --sampling mirostat: invalid enum value 7"),
        ({"sampling": ("xtc_threshold=0.9",)}, "Invalid --sampling xtc_threshold: expected `float` <= 0.5"),
        ({"sampling": ("ignore_eos=perhaps",)}, "Invalid --sampling ignore_eos: expected `bool`"),
        ({"sampling": ('logit_bias={"bee": 1}',)}, "Invalid --sampling logit_bias"),
        ({"sampling": (f'logit_bias={{"{"9" * 5000}": 1}}',)}, "Invalid --sampling logit_bias"),
        ({"sampling": ("logit_bias=" + "[" * 100_000,)}, "Invalid --sampling logit_bias"),
        ({"logprobs": 21}, "Invalid --logprobs: expected `int` <= 20"),
        ({"regex": "a", "grammar": "FILE"}, "at most one of grammar, regex"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_option(tmp_path: Path, given: dict[str, Any], why: str) -> None:
    (tmp_path / "FILE").write_text("root ::= .")
    if "grammar" in given:
        given["grammar"] = str(tmp_path / "FILE")
    with pytest.raises(InvalidRequest, match=why):
        built(**given)


def test_files_are_read(tmp_path: Path) -> None:
    grammar, schema = tmp_path / "a.gbnf", tmp_path / "a.json"
    grammar.write_text('root ::= "é"', encoding="utf-8")
    schema.write_text('{"type": "object"}')
    assert built(grammar=str(grammar)).grammar == 'root ::= "é"'
    assert built(json_schema=str(schema)).json_schema == {"type": "object"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "is not UTF-8"),
        (b"{", "is no JSON"),
        (b"[" * 50_000, "is no JSON"),
        (b" " * (FILE_BYTES + 1), "more than 65536 bytes"),
        (b"[]", "expected `object"),
        (b'{"minimum": NaN}', "is no JSON: NaN is no number"),
    ],
)
def test_a_file_that_is_no_schema_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=f"Invalid --json-schema.*{why}"):
        built(json_schema=str(path))


def test_nothing_is_sent_that_was_not_asked_for() -> None:
    assert needs.needed(built()) == frozenset()
    assert set(choosing(options()).values()) == {None}


def test_every_option_has_its_place_in_the_help() -> None:
    named = [name for names in SECTIONS.values() for name in names]
    known = [p.name for p in infer.params if isinstance(p, click.Option)]
    assert sorted(named) == sorted(known)
    text = infer.get_help(click.Context(infer, info_name="infer"))
    assert all(f"{title}:" in text for title in SECTIONS)
    assert all(opt in text for p in infer.params if isinstance(p, click.Option) for opt in p.opts)
