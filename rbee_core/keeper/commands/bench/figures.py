"""What a measurement comes to: rates and medians from when things came. Pure."""

from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from rbee_core.keeper.screen.show import size_words


class Answer(Struct, frozen=True):
    """One answer as its reader saw it; times in seconds since it was asked for."""

    prompt_tokens: int
    tokens: int
    first_token_s: float
    took_s: float

    @property
    def prompt_tokens_per_s(self) -> float:
        """How fast the prompt was read, with all that happens up to the first token."""
        return _rate(self.prompt_tokens, self.first_token_s)

    @property
    def generation_tokens_per_s(self) -> float:
        """How fast tokens came after the first."""
        return _rate(self.tokens - 1, self.took_s - self.first_token_s)


class Round(Struct, frozen=True):
    """Answers that were asked for at the same time. `hive_cpu_s` is None where the hive is not to be seen."""

    answers: Sequence[Answer]
    took_s: float
    hive_cpu_s: float | None = None

    @property
    def tokens(self) -> int:
        """All that came."""
        return sum(answer.tokens for answer in self.answers)


class Speed(Struct, frozen=True):
    """Medians over rounds of so many `streams` at a time; `tokens_per_s` is of all of them together, prompts included.

    `hive_cpu_us_per_token` is processor time that the hive took, None where it is not to be seen.
    """

    where: str
    streams: int
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    tokens_per_s: float
    first_token_ms: float
    hive_cpu_us_per_token: float | None = None


class Start(Struct, frozen=True):
    """How a model came to be ready, and what it takes. None is what cannot be seen from here.

    `phases_s` has the seconds of each phase in order; `load` is missing where the model was loaded already.
    """

    model: str
    backend: str
    device: str
    slots: int
    phases_s: dict[str, float]
    estimated_bytes: int
    resident_bytes: int | None = None


class Report(Struct, frozen=True):
    """Everything that `rbee bench` says."""

    start: Start
    speeds: Sequence[Speed]


def speed_of(where: str, rounds: Sequence[Round]) -> Speed:
    """Return the medians of `rounds`, each of as many answers."""
    answers = [answer for one in rounds for answer in one.answers]
    cpu = [one.hive_cpu_s / one.tokens * 1e6 for one in rounds if one.hive_cpu_s is not None and one.tokens]
    return Speed(
        where,
        len(rounds[0].answers),
        round(median(answer.prompt_tokens_per_s for answer in answers), 1),
        round(median(answer.generation_tokens_per_s for answer in answers), 1),
        round(median(_rate(one.tokens, one.took_s) for one in rounds), 1),
        round(median(answer.first_token_s for answer in answers) * 1000, 1),
        round(median(cpu), 1) if cpu else None,
    )


def start_lines(start: Start) -> list[str]:
    """Return what is said above the table."""
    phases = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in start.phases_s.items())
    resident = f", {size_words(start.resident_bytes)} resident" if start.resident_bytes is not None else ""
    slots = "1 slot" if start.slots == 1 else f"{start.slots} slots"
    return [
        f"{start.model} on {start.device} with {start.backend}, {slots}",
        f"start: {phases}",
        f"memory: {size_words(start.estimated_bytes)} estimated{resident}",
    ]


HEADERS = ("WHERE", "STREAMS", "PROMPT TOK/S", "TOK/S EACH", "TOK/S ALL", "FIRST TOKEN", "HIVE CPU/TOKEN")


def cells(speed: Speed) -> list[str]:
    """Return a row of the table under `HEADERS`."""
    cpu = "-" if speed.hive_cpu_us_per_token is None else f"{speed.hive_cpu_us_per_token:.0f} µs"
    return [
        speed.where,
        str(speed.streams),
        f"{speed.prompt_tokens_per_s:.0f}",
        f"{speed.generation_tokens_per_s:.1f}",
        f"{speed.tokens_per_s:.1f}",
        f"{speed.first_token_ms:.0f} ms",
        cpu,
    ]


def _rate(count: int, seconds: float) -> float:
    return count / seconds if count > 0 and seconds > 0 else 0.0
