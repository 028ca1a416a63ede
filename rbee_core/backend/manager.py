"""The plugin host: finds plugins, loads each in its own try, and offers every hook as a typed call.

Built by whoever composes a program and passed down; there is no global manager. Building one reads entry-point
metadata and imports plugin modules, which by the rules of the house import no engine.
"""

import logging
import re
import threading
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from rbee_core.backend import hookspecs
from rbee_core.backend.base import CAPABILITIES, Accelerator, Availability, Backend, Device, ModelSource
from rbee_core.errors import BackendNotAvailable, InvalidRequest

if TYPE_CHECKING:
    import click

GROUP = "rbee"
IMPORT_LIMIT_S = 10.0
BACKEND_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
ACCELERATORS: tuple[Accelerator, ...] = ("cpu", "cuda", "metal")

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PluginReport:
    """What `rbee plugins` shows of one plugin. `failure` is empty if it loaded."""

    name: str
    distribution: str = ""
    version: str = ""
    hooks: tuple[str, ...] = ()
    backends: list[str] = field(default_factory=list[str])
    sources: list[str] = field(default_factory=list[str])
    failure: str = ""


class PluginHost:
    """The loaded plugins of one process.

    `environ` is read for ``RBEE_LOAD_PLUGINS`` and ``RBEE_DISABLE_PLUGINS``; `found` replaces the installed entry
    points in tests.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        found: Iterable[EntryPoint] | None = None,
        import_limit_s: float = IMPORT_LIMIT_S,
    ) -> None:
        self._import_limit_s = import_limit_s
        self._manager = pluggy.PluginManager("rbee")
        self._manager.add_hookspecs(hookspecs)
        self._reports: dict[str, PluginReport] = {}
        self._backends: dict[str, Backend] | None = None
        self._sources: dict[str, ModelSource] | None = None
        only, never = _names(environ, "RBEE_LOAD_PLUGINS"), _names(environ, "RBEE_DISABLE_PLUGINS")
        for entry in entry_points(group=GROUP) if found is None else found:
            if entry.name not in never and (not only or entry.name in only):
                self._load(entry)

    def _load(self, entry: EntryPoint) -> None:
        report = PluginReport(entry.name)
        if entry.dist is not None:
            report.distribution, report.version = entry.dist.name, entry.dist.version
        if entry.name in self._reports:
            first = self._reports[entry.name]
            first.failure = first.failure or f"a second plugin with this name, from {report.distribution}, was ignored"
            log.warning("plugin %s: %s", entry.name, first.failure)
            return
        self._reports[entry.name] = report
        try:
            self._manager.register(_imported(entry, self._import_limit_s), name=entry.name)
            self._check_hooks(entry.name, report)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a stranger's module may raise anything
            self._fail(entry.name, error)

    def _check_hooks(self, name: str, report: PluginReport) -> None:
        plugin = self._manager.get_plugin(name)
        callers = self._manager.get_hookcallers(plugin) or []
        report.hooks = tuple(sorted(c.name for c in callers if c.has_spec()))
        if unknown := sorted(c.name for c in callers if not c.has_spec()):
            valid = ", ".join(n for n in dir(hookspecs) if n.startswith("rbee_"))
            raise InvalidRequest(f"unknown hook {', '.join(unknown)} (hooks are: {valid})")

    def _fail(self, name: str, error: BaseException) -> None:
        self._manager.unregister(name=name)
        self._manager.set_blocked(name)
        report = self._reports[name]
        report.failure = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        report.hooks = ()
        log.warning("plugin %s is not used: %s", name, report.failure)

    def _call_each(self, hook: str, **arguments: Any) -> Iterator[tuple[PluginReport, Any]]:
        """Call `hook` plugin by plugin, so that one that raises takes nobody along."""
        for impl in list(getattr(self._manager.hook, hook).get_hookimpls()):
            report = self._reports[impl.plugin_name]
            wanted = {name: arguments[name] for name in impl.argnames}
            try:
                impl.function(**wanted)
            except (Exception, SystemExit) as error:  # noqa: BLE001  # as above
                self._fail(impl.plugin_name, error)
                continue
            yield report, impl

    def backends(self) -> Mapping[str, Backend]:
        """Return every registered backend by name."""
        if self._backends is None:
            self._backends = {}
            gathered: list[Backend] = []
            for report, _ in self._call_each("rbee_register_backends", register=gathered.append):
                self._adopt_backends(report, gathered, self._backends)
                gathered.clear()
        return self._backends

    def _adopt_backends(self, report: PluginReport, new: Iterable[object], into: dict[str, Backend]) -> None:
        for candidate in new:
            try:
                backend = _checked_backend(candidate, taken=into)
            except (AttributeError, TypeError, ValueError) as error:
                self._fail(report.name, error)
            else:
                into[backend.name] = backend
                report.backends.append(backend.name)

    def sources(self) -> Mapping[str, ModelSource]:
        """Return every registered model source by scheme."""
        if self._sources is None:
            self._sources = {}
            gathered: list[ModelSource] = []
            for report, _ in self._call_each("rbee_register_model_sources", register=gathered.append):
                self._adopt_sources(report, gathered, self._sources)
                gathered.clear()
        return self._sources

    def _adopt_sources(self, report: PluginReport, new: Iterable[object], into: dict[str, ModelSource]) -> None:
        for source in new:
            schemes = getattr(source, "schemes", None)
            if not isinstance(source, ModelSource) or not isinstance(schemes, (set, frozenset)) or not schemes:
                error = TypeError(
                    f"registered a {type(source).__name__}, which is no ModelSource with a set of schemes"
                )
                self._fail(report.name, error)
                continue
            for scheme in sorted(source.schemes - into.keys()):
                into[scheme] = source
                report.sources.append(scheme)

    def add_commands(self, group: "click.Group") -> None:
        """Let plugins add commands to the CLI's group."""
        for _ in self._call_each("rbee_add_commands", group=group):
            pass

    def worker_ready(self, worker_id: str, model: str, backend: str, device: str) -> None:
        """Tell plugins that a worker became ready."""
        for _ in self._call_each("rbee_worker_ready", worker_id=worker_id, model=model, backend=backend, device=device):
            pass

    def worker_gone(self, worker_id: str, reason: str) -> None:
        """Tell plugins that a worker left the registry."""
        for _ in self._call_each("rbee_worker_gone", worker_id=worker_id, reason=reason):
            pass

    def reports(self) -> Sequence[PluginReport]:
        """Return what is known of every plugin, after asking all of them to register."""
        self.backends()
        self.sources()
        return [self._reports[name] for name in sorted(self._reports)]

    def usable_backends(self) -> list[Backend]:
        """Return the backends that can run here, best first."""
        ranked = sorted(self.backends().values(), key=lambda b: (-b.priority, b.name))
        return [b for b in ranked if self.availability(b).usable]

    def availability(self, backend: Backend) -> Availability:
        """Return what `backend` says of itself; one that raises is not usable, with its reason."""
        try:
            answer = backend.availability()
            if answer.usable and not self.devices(backend):
                return Availability(usable=False, reason="it found no device")
        except Exception as error:  # noqa: BLE001  # a stranger's code may raise anything
            return Availability(usable=False, reason=f"its check failed with {type(error).__name__}: {error}")
        return answer

    def devices(self, backend: Backend) -> Sequence[Device]:
        """Return the devices of `backend`."""
        return backend.devices()

    def choose(self, wanted: str | None, model_format: str | None) -> Backend:
        """Return the backend to use: the one asked for, or the best usable one that reads `model_format`.

        `wanted` may be a backend's name or an accelerator word. Never falls back: raises `InvalidRequest` for a name
        nobody registers or a format it does not read, `BackendNotAvailable` for one that cannot run here.
        """
        if wanted and wanted not in ACCELERATORS:
            if wanted not in self.backends():
                raise InvalidRequest.unknown_backend(wanted, [*self.backends(), *ACCELERATORS])
            candidates = [self.backends()[wanted]]
        else:
            candidates = [b for b in self.backends().values() if wanted in (None, b.accelerator)]
        return self._best(candidates, wanted, model_format)

    def _best(self, candidates: Sequence[Backend], wanted: str | None, model_format: str | None) -> Backend:
        ranked = sorted(candidates, key=lambda b: (-b.priority, b.name))
        refused: list[tuple[Backend, Availability]] = []
        for backend in ranked:
            answer = self.availability(backend)
            if answer.usable and model_format in (None, *backend.formats):
                return backend
            refused.append((backend, answer))
        usable = [b.name for b in self.usable_backends()]
        for backend, answer in refused:
            if not answer.usable and wanted:
                label = wanted.upper() if wanted in ACCELERATORS else backend.name
                raise BackendNotAvailable(backend=label, why=answer.reason, available=usable, hint=answer.hint)
        if refused and wanted:
            readable = ", ".join(sorted({f for b, _ in refused for f in b.formats}))
            raise InvalidRequest(
                f"Backend {wanted} reads {readable}, the model is {model_format}",
                hint=f"leave --backend out; available here: {', '.join(usable) or 'none'}",
            )
        what = f"no installed backend reads {model_format}" if wanted is None else "no plugin provides it"
        label = wanted.upper() if wanted else f"for {model_format}"
        raise BackendNotAvailable(backend=label, why=what, available=usable, hint="`rbee plugins` lists plugins")


def _checked_backend(candidate: object, taken: Container[str]) -> Backend:
    """Return `candidate` if it can be used; raise what is wrong with it, or what looking at it raised."""
    if not isinstance(candidate, Backend):
        raise TypeError(f"registered a {type(candidate).__name__}, which is no Backend")
    name, formats = candidate.name, candidate.formats
    if not BACKEND_NAME.fullmatch(name) or not formats:
        raise ValueError("a backend needs a name of lower-case letters, digits and dashes, and formats")
    if name in taken or name in ACCELERATORS:
        raise ValueError(f"the backend name {name} is taken")
    if wrong := sorted(candidate.capabilities - CAPABILITIES):
        raise ValueError(f"unknown capabilities {', '.join(wrong)}")
    return candidate


def _names(environ: Mapping[str, str], variable: str) -> set[str]:
    return {name.strip() for name in environ.get(variable, "").split(",") if name.strip()}


def _imported(entry: EntryPoint, limit_s: float) -> object:
    """Return the plugin's module, imported in a thread of its own so that one that hangs stops nobody else.

    Raises whatever the import raised, and `TimeoutError`.
    """
    outcome: list[tuple[object, BaseException | None]] = []

    def work() -> None:
        try:
            outcome.append((entry.load(), None))
        except BaseException as error:  # noqa: BLE001  # raised again by the caller
            outcome.append((None, error))

    thread = threading.Thread(target=work, name=f"import-{entry.name}", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise TimeoutError(f"its import did not end within {limit_s:g} s")
    module, error = outcome[0]
    if error is not None:
        raise error
    return module
