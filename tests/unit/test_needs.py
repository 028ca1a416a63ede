"""What a request needs of its backend is known by the fields that it sets, and refused by their names."""

import msgspec
import pytest

from rbee_core import wire
from rbee_core.backend import GenerateRequest, needs
from rbee_core.backend.base import CAPABILITIES
from rbee_core.errors import NotSupported
from rbee_plugins.llamacpp.backend import LlamaCppCpu
from rbee_plugins.mlx.backend import Mlx

COMMON = {
    "prompt", "messages", "max_tokens", "temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed",
}  # fmt: skip
VALUES = {
    "frequency_penalty": 1.0, "presence_penalty": 1.0, "penalty_window": 5, "logit_bias": {5: 1.0}, "typical_p": 0.5,
    "top_n_sigma": 1.0, "xtc_probability": 0.5, "xtc_threshold": 0.2, "dry_multiplier": 0.8, "dry_base": 2.0,
    "dry_allowed_length": 3, "dry_window": 9, "dry_breakers": ("x",), "mirostat": 2, "mirostat_tau": 3.0,
    "mirostat_eta": 0.2, "min_tokens": 3, "ignore_eos": True, "logprobs": 0, "grammar": "root ::= .", "regex": ".",
    "json_schema": {}, "suffix": "x", "tools": [{"name": "look"}],
}  # fmt: skip
OF_OTHER_KINDS = {"texts", "documents"}
"""Fields of requests that ask for something else than text."""


class Modest(LlamaCppCpu):
    name = "modest"
    capabilities = frozenset({"stream", "cancel"})
    obeys = frozenset({"logit_bias"})


def task(**fields):
    asked = {"messages": [{"role": "user", "content": "x"}]} if "tools" in fields else {"prompt": "x"}
    return msgspec.convert({**asked, "request_id": "r", **fields}, wire.WorkerTask, strict=False)


def test_every_field_that_is_not_common_needs_a_word():
    words = {name for names in needs.WORDS.values() for name in names}
    assert words == {*VALUES, *OF_OTHER_KINDS}
    assert needs.WORDS.keys() <= CAPABILITIES
    assert words - OF_OTHER_KINDS <= set(GenerateRequest.__struct_fields__)
    assert needs.needed(GenerateRequest(prompt="x")) == needs.needed(task()) == frozenset()


@pytest.mark.parametrize("name", VALUES)
def test_a_field_that_is_set_is_refused_by_name(name):
    fields = {name: VALUES[name]}
    needs.check(task(**fields), [LlamaCppCpu()])
    needs.check(task(**fields), [Modest(), LlamaCppCpu()])
    if name in Modest.obeys:
        needs.check(task(**fields), [Modest()])
        return
    with pytest.raises(NotSupported, match=rf"modest does not know {name}: that needs ") as refused:
        needs.check(task(**fields), [Modest()])
    assert refused.value.details["fields"] == [name]
    assert refused.value.http_status == 422


def test_one_backend_has_to_do_all_of_it():
    class Neither(Modest):
        name = "neither"
        capabilities = frozenset({"logprobs"})
        obeys = frozenset()

    with pytest.raises(NotSupported, match="None of modest, neither knows logit_bias, logprobs: "):
        needs.check(task(logit_bias={5: 1.0}, logprobs=1), [Modest(), Neither()])


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "tool", "content": "21", "tool_call_id": "c"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "look", "arguments": "{}"}]},
    ],
)
def test_turns_about_tools_need_the_word_too(turn):
    asked = msgspec.convert({"messages": [turn], "request_id": "r"}, wire.WorkerTask)
    needs.check(asked, [LlamaCppCpu()])
    with pytest.raises(NotSupported, match="modest does not know tools: that needs tools"):
        needs.check(asked, [Modest()])


def test_hints_for_a_template_are_no_demand():
    asked = {"messages": [{"role": "user", "content": "x"}], "template_arguments": {"enable_thinking": False}}
    needs.check(msgspec.convert({**asked, "request_id": "r"}, wire.WorkerTask), [Modest()])


def test_what_the_backends_declare_is_known():
    assert Mlx.obeys <= set(needs.WORDS["samplers"])


def test_what_a_worker_is_asked_for_says_what_its_requests_will_need():
    values = {name: value for name, value in VALUES.items() if name not in ("grammar", "regex", "suffix")}
    assert needs.needed(task(**values)) == set(values)
    assert needs.needed(wire.EmbedTask(request_id="r", texts=["x"])) == {"texts"}
    assert needs.needed(wire.RerankTask(request_id="r", query="x", documents=["x"])) == {"documents"}
