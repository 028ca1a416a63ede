"""What an answer, a failure and a stream's end mean, and when to try again: the same for every transport."""

import ipaddress
import math
import os
import random
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from rbee_core import sse, tls, wire
from rbee_core.client.calls import Call
from rbee_core.client.terms import ClientTerms
from rbee_core.errors import HiveUnreachable, RbeeError, RemoteError, StreamBroken, shorten

ATTEMPTS = 3
FIRST_RETRY_DELAY_S = 0.1
PROGRESS_SILENCE_S = 5.0
EVENTS_SILENCE_S = 60.0
"""A hive with nothing to tell says so four times as often."""

T = TypeVar("T")


class HiveLost(HiveUnreachable):
    """Raised when a hive took a request and did not answer it; whether it was carried out is not known."""

    def __init__(self, address: str, error: BaseException) -> None:
        hint = "it may have just stopped, or be overloaded: look with `rbee hive status`"
        RbeeError.__init__(self, f"{address} did not answer: {sentence(error)}", hint=hint)


class Attempts:
    """The attempts of one call to be heard by somebody."""

    def __init__(self, address: str, call: Call[T], attempts: int) -> None:
        self._address = address
        self._idempotent = call.idempotent
        self._attempts = attempts
        self._failed = 0

    def failed(self, error: Exception, *, unsent: bool) -> float:
        """Return for how many seconds to wait before the next attempt. Raises when there is none.

        What may already have been carried out is not sent twice, and a hive that is not trusted stays so.
        """
        self._failed += 1
        if untrusted := tls.distrust(self._address, error):
            raise untrusted from error
        if not (unsent or self._idempotent):
            raise HiveLost(self._address, error) from error
        if self._failed == self._attempts:
            raise HiveUnreachable(address=self._address, attempts=self._attempts) from error
        return jittered(FIRST_RETRY_DELAY_S * 2 ** (self._failed - 1))


class InferenceReader:
    """One inference's stream, as far as it was read."""

    def __init__(self, terms: ClientTerms, host: str) -> None:
        self._stall_s = terms.token_stall_s
        self._line_s = terms.line_s if _is_elsewhere(host) else None
        self._host = host
        self.silence_s: float | None = None
        self._tokens = 0
        self._finished = False
        self.error: wire.ErrorObject | None = None

    def opened(self, headers: Mapping[str, str]) -> list[wire.StreamEvent]:
        """Return the event that the headers of an answer stand for: who answers.

        `silence_s` is then for how long nothing may come: from another machine, whose hive keeps its streams alive.
        """
        beat_s = _seconds(headers.get("X-Rbee-Keep-Alive", ""))
        if beat_s and self._line_s:
            self.silence_s = max(self._line_s, 3 * beat_s)
        worker_id = headers.get("X-Rbee-Worker", "")
        return [wire.StreamEvent(worker_id=worker_id)] if worker_id else []

    def take(self, group: list[wire.StreamEvent]) -> list[wire.StreamEvent]:
        """Return the events to hand on. `error` is then what came behind them and ended the stream, if one did."""
        self.error = group[-1].error
        good = group[:-1] if self.error else group
        if good:
            self._tokens += sum(event.token is not None for event in good)
            self._finished = good[-1].done
        return good

    def failed(self, error: Exception, *, silent: bool) -> None:
        """Raise what a failure while reading means; nothing, behind the stream's last word."""
        if self._finished:
            return
        if silent and self.silence_s is not None:
            why = f"nothing came from {self._host} for {self.silence_s:g} s"
            raise StreamBroken(tokens=self._tokens, why=why) from None
        if silent:
            raise sse.stalled(self._stall_s) from None
        raise StreamBroken(tokens=self._tokens, why=sentence(error)) from error

    def ended(self) -> None:
        """Raise `StreamBroken` if the stream's last word did not come."""
        if not self._finished:
            raise StreamBroken(tokens=self._tokens, why="it ended without a last word")


def vectors(events: Iterable[wire.StreamEvent]) -> list[list[float]]:
    """Return the vectors among `events`, in the order of their texts."""
    found = {event.index: event.vector for event in events if event.vector is not None}
    return [found[index] for index in sorted(found)]


def scores(events: Iterable[wire.StreamEvent]) -> list[float]:
    """Return the scores among `events`, in the order of their documents."""
    found = {event.index: event.score for event in events if event.score is not None}
    return [found[index] for index in sorted(found)]


def headers(terms: ClientTerms) -> dict[str, str]:
    """Return what every request says: who asks, so that users of one machine take turns, and the key."""
    key = {"Authorization": f"Bearer {terms.api_key}"} if terms.api_key else {}
    return {"X-Rbee-Client": f"user-{os.getuid()}", **key}


def _is_elsewhere(host: str) -> bool:
    """Return whether a line leads there that can be cut without a word."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def jittered(delay_s: float) -> float:
    """Return `delay_s` times 0.5 to 1.5, so that many clients do not come back in step."""
    return delay_s * random.uniform(0.5, 1.5)  # noqa: S311  # no secret hangs on it


def read(address: str, call: Call[T], status: int, content: bytes) -> T:
    """Return the answer to `call`. Raises `RemoteError` with what the hive said otherwise."""
    check_status(address, status, content)
    if call.answer is type(None):
        return None  # pyright: ignore[reportReturnType]
    try:
        return msgspec.json.decode(content, type=call.answer)
    except msgspec.MsgspecError:
        raise _stranger(address, status) from None


def check_status(address: str, status: int, content: bytes) -> None:
    """Raise the error that an answer is, if it is one."""
    if status < 400:
        return
    try:
        error = msgspec.json.decode(content, type=wire.ErrorBody).error
    except msgspec.MsgspecError:
        raise _stranger(address, status) from None
    raise RemoteError.of(error, status)


def sentence(error: BaseException) -> str:
    """Return what a foreign error says, fit for one line."""
    return shorten(str(error) or type(error).__name__)


def _stranger(address: str, status: int) -> RemoteError:
    message = f"What answers at {address} (HTTP {status}) does not speak like a hive"
    hint = "another program may be listening there: check host and port"
    return RemoteError(code="INTERNAL", message=message, http_status=status, details={"hint": hint})
