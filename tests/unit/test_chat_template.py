"""A model's chat template: what it may use, and what happens when it wants too much."""

import json
from datetime import datetime

import pytest

from rbee_core.backend import Message
from rbee_core.errors import InvalidRequest
from rbee_plugins.llamacpp.chat import ChatTemplate

TALK = [Message("user", "hi <b>"), Message("assistant", "ho"), Message("user", "蜂蜜")]


def render(source: str, messages: list[Message] = TALK) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>hi <b></s>"),
        (
            "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m['content'] }};\n  {% endif %}\n{% endfor %}",
            "hi <b>;\n蜂蜜;\n",
        ),
        ("{{ messages[2] | tojson }}", '{"role": "user", "content": "蜂蜜"}'),
        ("{{ [1, 2] | tojson(indent=1) }}", "[\n 1,\n 2\n]"),
        ("{{ messages[0].content | tojson }}", '"hi <b>"'),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}.", "ho."),
        ("{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "user"),
        ("{% if add_generation_prompt %}go{% endif %}{% if tools is not none %}no{% endif %}", "go"),
        ("{% if documents is not none %}no{% endif %}.", "."),
        ("{{ strftime_now('%Y') }}", str(datetime.now().astimezone().year)),
    ],
)
def test_what_templates_are_written_with(source: str, expected: str) -> None:
    assert render(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no system message, please') }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__ }}{{ cycler.__init__.__globals__.os.getpid() }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{{ messages[0] | tojson(default=cycler) }}",
        "{% endfor %}",
        "",
    ],
)
def test_a_template_that_wants_too_much_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        render(source)
    assert caught.value.hint


def test_what_a_template_says_is_passed_on() -> None:
    with pytest.raises(InvalidRequest, match="turns must alternate"):
        render("{{ raise_exception('turns must alternate') }}")


def test_a_template_is_compiled_once() -> None:
    template = ChatTemplate("{{ messages | length }}", "", "")
    assert [template.render(TALK), template.render(TALK[:1])] == ["3", "1"]
    assert json.loads(template.render([])) == 0
