"""Choosing a backend by what every one said of itself. Asking is `ask`; all the rest is pure and never falls back."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rbee_core.backend.base import Accelerator, Availability, Backend, Device
from rbee_core.errors import BackendNotAvailable, InvalidRequest, PluginTimeout, RbeeError

ACCELERATORS: tuple[Accelerator, ...] = ("cpu", "cuda", "metal")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A backend with what it said of itself just now. One that did not answer in time has `late`."""

    backend: Backend
    availability: Availability
    devices: Sequence[Device] = ()
    late: PluginTimeout | None = None

    @property
    def usable(self) -> bool:
        """Whether it can run here."""
        return self.availability.usable


def ask(backend: Backend) -> Candidate:
    """Ask `backend` whether it can run here and on what. Calls a stranger's code, once; never raises.

    One that raises, answers with something else or finds no device is not usable, and says why.
    """
    try:
        answer = backend.availability()
        if not answer.usable:
            return Candidate(backend, answer)
        devices = list(backend.devices() if answer.devices is None else answer.devices)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's code may raise anything
        why = f"its check failed with {type(error).__name__}: {error}"
        return Candidate(backend, Availability(usable=False, reason=why))
    if not devices:
        return Candidate(backend, Availability(usable=False, reason="it found no device"))
    return Candidate(backend, answer, devices)


def too_late(backend: Backend, late: PluginTimeout) -> Candidate:
    """Return the candidate for a backend that did not answer in time: it may be usable, nobody knows."""
    return Candidate(backend, Availability(usable=False, reason=late.message, hint=late.hint), late=late)


def ranked(backends: Iterable[Backend]) -> list[Backend]:
    """Return `backends`, best first."""
    return sorted(backends, key=lambda b: (-b.priority, b.name))


def named(backends: Iterable[Backend], wanted: str | None) -> list[Backend]:
    """Return those that `wanted` may mean, best first: a name, an accelerator word, or None for any.

    Raises `InvalidRequest` for a name that nobody registers.
    """
    known = ranked(backends)
    if wanted and wanted not in ACCELERATORS:
        if wanted not in (names := [b.name for b in known]):
            raise InvalidRequest.unknown_backend(wanted, [*names, *ACCELERATORS])
        return [b for b in known if b.name == wanted]
    return [b for b in known if wanted in (None, b.accelerator)]


def choose(candidates: Sequence[Candidate], wanted: str | None, model_format: str | None) -> Candidate:
    """Return the first candidate that `wanted` may mean, can run here and reads `model_format`; they come best first.

    Raises `PluginTimeout` where a better one did not answer, as that may be the right one. Raises `InvalidRequest` for
    a format that the wanted one does not read, else `BackendNotAvailable`; both name the candidates that are usable.
    """
    meant = [c for c in candidates if wanted in (None, c.backend.name, c.backend.accelerator)]
    for candidate in meant:
        if model_format not in (None, *candidate.backend.formats):
            continue
        if candidate.late is not None:
            raise candidate.late
        if candidate.usable:
            return candidate
    raise _none_fits(meant, [c.backend.name for c in candidates if c.usable], wanted, model_format)


def _none_fits(
    meant: Sequence[Candidate], usable: Sequence[str], wanted: str | None, model_format: str | None
) -> RbeeError:
    label = wanted.upper() if wanted in ACCELERATORS else wanted or f"for {model_format}"
    if wanted is None:
        what = f"no installed backend reads {model_format}"
    elif not meant:
        what = "no plugin provides it"
    elif unusable := next((c.availability for c in meant if not c.usable), None):
        return BackendNotAvailable(backend=label, why=unusable.reason, available=usable, hint=unusable.hint)
    else:
        readable = ", ".join(sorted({f for c in meant for f in c.backend.formats}))
        hint = f"leave --backend out; available here: {', '.join(usable) or 'none'}"
        return InvalidRequest(f"Backend {wanted} reads {readable}, the model is {model_format}", hint=hint)
    return BackendNotAvailable(backend=label, why=what, available=usable, hint="`rbee plugins` lists plugins")
