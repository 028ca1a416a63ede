"""What `rbee bench` makes of when things came, and how it draws that."""

from xml.etree import ElementTree as ET

import pytest

from rbee_core.errors import RbeeError
from rbee_core.keeper.commands.bench import plot
from rbee_core.keeper.commands.bench.asking import SENTENCE_WORDS, prompt_of, together
from rbee_core.keeper.commands.bench.figures import Answer, Round, Start, cells, speed_of, start_lines

ANSWER = Answer(prompt_tokens=100, tokens=21, first_token_s=0.5, took_s=2.5)


def test_reading_and_writing_are_told_apart() -> None:
    assert (ANSWER.prompt_tokens_per_s, ANSWER.generation_tokens_per_s) == (200, 10)


def test_a_text_of_one_token_has_no_speed() -> None:
    assert Answer(0, 1, 0.0, 0.0).generation_tokens_per_s == Answer(0, 1, 0.0, 0.0).prompt_tokens_per_s == 0


def test_figures_are_medians_of_rounds_and_totals_of_streams() -> None:
    rounds = [
        Round((ANSWER, ANSWER), took_s, hive_cpu_s) for took_s, hive_cpu_s in ((3, 0.042), (4.2, 0.0042), (42, 0))
    ]
    speed = speed_of("rbee", rounds)
    assert (speed.streams, speed.tokens_per_s, speed.first_token_ms) == (2, 10, 500)
    assert speed.hive_cpu_us_per_token == 100
    assert cells(speed) == ["rbee", "2", "200", "10.0", "10.0", "500 ms", "100 µs"]


def test_what_cannot_be_seen_is_not_said() -> None:
    speed = speed_of("http://there/v1", [Round((ANSWER,), 2.5)])
    assert (speed.hive_cpu_us_per_token, cells(speed)[-1]) == (None, "-")
    assert start_lines(Start("m", "b", "cpu", 1, {"model": 0.5}, 5_000_000)) == [
        "m on cpu with b, 1 slot",
        "start: model 0.50 s",
        "memory: 5 MB estimated",
    ]


def test_the_longest_bar_is_the_quickest_and_names_are_no_markup() -> None:
    quick, slow = (speed_of(name, [Round((ANSWER,), took_s)]) for name, took_s in (("a<b", 1), ("c&d", 4)))
    drawn = ET.fromstring(plot.draw("a <model>", [quick, slow]))
    first, second = (float(bar.get("width", "")) for bar in list(drawn.iter("{http://www.w3.org/2000/svg}rect"))[1:])
    assert first == pytest.approx(4 * second, abs=5)
    assert "a<b, 1 stream" in [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    ET.fromstring(plot.draw("nothing", []))


def test_prompts_begin_differently_and_are_as_long_as_asked_for() -> None:
    one, other = prompt_of(200), prompt_of(200)
    assert one.split()[:2] != other.split()[:2]
    assert abs(len(one.split()) - 200) <= SENTENCE_WORDS


def test_answers_are_waited_for_and_the_first_error_is_raised() -> None:
    moments = iter((1.0, 3.5))

    def answer(prompt: str, tokens: int) -> Answer:
        return Answer(len(prompt.split()), tokens, 0.1, 0.2)

    assert together(answer, 3, 10, 2, lambda: next(moments)).hive_cpu_s == 2.5

    def fail(prompt: str, tokens: int) -> Answer:
        raise RbeeError(f"no {tokens} for {prompt[:4]}")

    with pytest.raises(RbeeError, match="no 2 for Note"):
        together(fail, 2, 10, 2, lambda: None)
