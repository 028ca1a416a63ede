"""A model's chat template: what it may use, and what happens when it wants too much."""

import json
import threading
from contextlib import closing
from datetime import datetime

import psutil
import pytest

from rbee_core.backend import Message, template_program
from rbee_core.backend.templates import SECONDS, ChatTemplate
from rbee_core.errors import InvalidRequest, RbeeError, ShuttingDown
from rbee_kit.waiting import eventually

TALK = [Message("user", "hi <b>"), Message("assistant", "ho"), Message("user", "蜂蜜")]
MARKS = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source: str) -> str:
    """Do what the program does, without its process."""
    talk = [{"role": m.role, "content": m.content} for m in TALK]
    wanted = {"messages": talk, "add_generation_prompt": True, "tools": None, "documents": None, **MARKS}
    template = template_program.ready(source, SECONDS)
    answer = template_program.answer_to(json.dumps(wanted).encode(), template, SECONDS)
    if answer[:1] == template_program.REFUSED:
        raise InvalidRequest(answer[1:].decode())
    return answer[1:].decode()


def rendered(template: ChatTemplate, messages: list[Message] = TALK) -> str:
    return template.render(messages, MARKS, threading.Event())


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
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__ }}{{ cycler.__init__.__globals__.os.getpid() }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{{ messages[0] | tojson(default=cycler) }}",
        "{% endfor %}",
        "{% for a in range(9000) %}{{ 'bee' * 9000 }}{% endfor %}",
    ],
)
def test_a_template_that_wants_too_much_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest):
        render(source)


def test_what_a_template_says_is_passed_on() -> None:
    with closing(ChatTemplate("{{ raise_exception('turns must alternate') }}")) as template:
        with pytest.raises(InvalidRequest, match="refused the messages: turns must alternate") as caught:
            rendered(template)
        assert "--raw" in caught.value.hint
    with pytest.raises(InvalidRequest, match="no chat template"):
        rendered(ChatTemplate(""))


def test_a_long_conversation_goes_through_it_whole() -> None:
    talk = [Message("user", "蜂" * 500_000), Message("assistant", "\ud800")]
    with closing(ChatTemplate(" " * 200_000 + "{% for m in messages %}{{ m.content }}{% endfor %}")) as template:
        assert rendered(template, talk).strip() == "蜂" * 500_000 + "?"
        assert rendered(template, talk[:1]).strip() == "蜂" * 500_000


def processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if any("template_program" in word for word in p.cmdline())]


@pytest.fixture
def shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee_core.backend.templates.SECONDS", 0.2)


LOOPS = {
    "counting": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "one number": "{{ 9 ** 999999999 }}",
    "when it is made ready": "{{ 7 ** (7 ** (7 ** 7)) }}",
}


@pytest.mark.parametrize("source", LOOPS.values(), ids=LOOPS)
@pytest.mark.usefixtures("shorter")
def test_a_template_that_never_ends_is_ended_and_named(source: str) -> None:
    with closing(ChatTemplate(source)) as template:
        for _ in range(2):
            with pytest.raises(InvalidRequest, match=r"chat template was given up: .* within 0\.2 s of computing"):
                rendered(template)
        assert not processes()


def test_what_is_too_large_for_memory_is_refused_and_the_next_text_is_made() -> None:
    source = "{{ messages[0].content * (1 if messages | length == 1 else 999999999) }}"
    with closing(ChatTemplate(source)) as template:
        with pytest.raises(InvalidRequest, match="more than 256 MiB of memory"):
            rendered(template)
        assert rendered(template, TALK[:1]) == "hi <b>"


def test_whoever_leaves_takes_the_process_along_and_the_next_one_gets_another() -> None:
    source = "{% if messages | length > 1 %}" + LOOPS["counting"] + "{% endif %}done"
    left, texts = threading.Event(), list[str]()
    with closing(ChatTemplate(source)) as template:
        asking = [
            threading.Thread(target=lambda: texts.append(template.render(TALK, MARKS, left))) for _ in range(2)
        ]  # one computes, one waits for its turn
        for thread in asking:
            thread.start()
        left.set()
        for thread in asking:
            thread.join()
        assert texts == ["", ""]
        assert rendered(template, TALK[:1]) == "done"
    eventually(lambda: not processes(), 5, what="nothing runs on")


class Watched(threading.Event):
    """A token that says how often it was asked."""

    asked = 0

    def is_set(self) -> bool:
        self.asked += 1
        return super().is_set()


def test_closing_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee_core.backend.templates.SECONDS", 600.0)
    template, cancel, told = ChatTemplate(LOOPS["counting"]), Watched(), list[RbeeError]()

    def ask() -> None:
        try:
            template.render(TALK, MARKS, cancel)
        except RbeeError as error:
            told.append(error)

    asking = [threading.Thread(target=ask) for _ in range(2)]  # one computes, one waits for its turn
    for thread in asking:
        thread.start()
    eventually(lambda: cancel.asked > 6, 30, what="they are within")
    template.close()
    for thread in asking:
        thread.join()
    assert [type(error) for error in told] == [ShuttingDown] * 2
    assert not processes()
