"""The plugin host: finds plugins, loads each in its own try, and offers every hook as a typed call.

Built by whoever composes a program and passed down; there is no global manager. Building one reads entry-point
metadata and imports plugin modules, which by the rules of the house import no engine.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from rbee_core.backend import hookspecs, needs
from rbee_core.backend.base import CAPABILITIES, Backend, ModelSource
from rbee_core.backend.choice import ACCELERATORS, Candidate, ask, choose, named, ranked
from rbee_core.errors import InvalidRequest, origin

if TYPE_CHECKING:
    import click

GROUP = "rbee"
LIMIT_S = 10.0
BACKEND_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

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


class _RefusedError(ValueError):
    """Raised by us for what a plugin registered; the place where it is raised tells its author nothing."""


class PluginHost:
    """The loaded plugins of one process.

    `environ` is read for ``RBEE_LOAD_PLUGINS`` and ``RBEE_DISABLE_PLUGINS``; `found` replaces the installed entry
    points in tests.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        found: Iterable[EntryPoint] | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._limit_s = limit_s
        self._debug = environ.get("RBEE_DEBUG") == "1"
        self._manager = pluggy.PluginManager("rbee")
        self._manager.add_hookspecs(hookspecs)
        self._reports: dict[str, PluginReport] = {}
        self._backends: dict[str, Backend] | None = None
        self._sources: dict[str, ModelSource] | None = None
        only, never = _names(environ, "RBEE_LOAD_PLUGINS"), _names(environ, "RBEE_DISABLE_PLUGINS")
        every = entry_points(group=GROUP) if found is None else found
        for entry in sorted(every, key=lambda entry: not _is_own(entry)):  # nobody takes a name from rbee itself
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
            module = _within(self._limit_s, "its import", entry.load)
            self._manager.register(module, name=entry.name)
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
        """Use nothing of a plugin that failed while it was loaded or registered."""
        report = self._reports[name]
        self._refuse(report, error)
        for table, names in ((self._backends, report.backends), (self._sources, report.sources)):
            for registered in names:
                if table is not None:
                    table.pop(registered, None)
            names.clear()

    def _refuse(self, report: PluginReport, error: BaseException) -> None:
        if self._manager.has_plugin(report.name):
            self._manager.unregister(name=report.name)
        self._manager.set_blocked(report.name)
        report.failure = str(error) if isinstance(error, _RefusedError) else _told(error)
        report.hooks = ()
        log.warning("plugin %s is not used: %s", report.name, report.failure, exc_info=error if self._debug else None)

    def _call_each(self, hook: str, argument: Callable[[], Any]) -> Iterator[tuple[PluginReport, Any]]:
        """Call `hook` plugin by plugin, each with an `argument` of its own, and yield those who took it.

        One that raises, leaves or hangs takes nobody along.
        """
        for impl in list(getattr(self._manager.hook, hook).get_hookimpls()):
            value = argument()
            try:
                _within(self._limit_s, f"its hook {hook}", impl.function, *[value][: len(impl.argnames)])
            except (Exception, SystemExit) as error:  # noqa: BLE001  # as above
                self._fail(impl.plugin_name, error)
            else:
                yield self._reports[impl.plugin_name], value

    def backends(self) -> Mapping[str, Backend]:
        """Return every registered backend by name."""
        if self._backends is None:
            self._backends = {}
            for report, registered in self._call_each("rbee_register_backends", _Register):
                self._adopt_backends(report, registered, self._backends)
        return self._backends

    def _adopt_backends(self, report: PluginReport, new: Iterable[object], into: dict[str, Backend]) -> None:
        """Take all backends of a plugin, or none: half a plugin is nothing that anybody wrote."""
        adopted: dict[str, Backend] = {}
        try:
            for candidate in new:
                backend = _checked_backend(candidate, self._takers() | dict.fromkeys(adopted, report.name))
                adopted[backend.name] = backend
        except (AttributeError, TypeError, ValueError) as error:
            self._fail(report.name, error)
            return
        into.update(adopted)
        report.backends.extend(adopted)

    def _takers(self) -> dict[str, str]:
        """Return which plugin has which backend's name."""
        return {name: report.name for report in self._reports.values() for name in report.backends}

    def sources(self) -> Mapping[str, ModelSource]:
        """Return every registered model source by scheme."""
        if self._sources is None:
            self._sources = {}
            for report, registered in self._call_each("rbee_register_model_sources", _Register):
                self._adopt_sources(report, registered, self._sources)
        return self._sources

    def _adopt_sources(self, report: PluginReport, new: Iterable[object], into: dict[str, ModelSource]) -> None:
        """Take all sources of a plugin, or none."""
        adopted: dict[str, ModelSource] = {}
        for source in new:
            schemes = getattr(source, "schemes", None)
            if not isinstance(source, ModelSource) or not isinstance(schemes, (set, frozenset)) or not schemes:
                error = _RefusedError(
                    f"registered a {type(source).__name__}, which is no ModelSource with a set of schemes"
                )
                self._fail(report.name, error)
                return
            adopted |= dict.fromkeys(sorted(source.schemes - into.keys() - adopted.keys()), source)
        into.update(adopted)
        report.sources.extend(adopted)

    def add_commands(self, group: "click.Group") -> None:
        """Let plugins add commands to the CLI's group."""
        for _ in self._call_each("rbee_add_commands", lambda: group):
            pass

    def listeners(self, hook: str) -> list[tuple[str, Callable[..., object]]]:
        """Return the plugins that hear `hook`, and what to call with all its arguments, by name."""
        impls = getattr(self._manager.hook, hook).get_hookimpls()
        return [(impl.plugin_name, _Listener(impl.function, impl.argnames)) for impl in impls]

    def drop(self, plugin: str, error: BaseException) -> None:
        """Call none of its hooks again. What it registered stays: workers may run on it."""
        self._refuse(self._reports[plugin], error)

    def reports(self) -> Sequence[PluginReport]:
        """Return what is known of every plugin, after asking all of them to register."""
        self.backends()
        self.sources()
        return [self._reports[name] for name in sorted(self._reports)]

    def candidates(self) -> list[Candidate]:
        """Ask every backend what it can do here; best first. As slow as the slowest driver."""
        return [ask(backend) for backend in ranked(self.backends().values())]

    def choose(self, wanted: str | None, model_format: str | None) -> Backend:
        """Return the backend to use: the one asked for, or the best usable one that reads `model_format`.

        `wanted` may be a backend's name or an accelerator word. Never falls back: raises `InvalidRequest` for a name
        nobody registers or a format it does not read, `BackendNotAvailable` for one that cannot run here.
        """
        named(self.backends().values(), wanted)
        return choose(self.candidates(), wanted, model_format).backend


def _is_own(entry: EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == "rbee"


def _checked_backend(candidate: object, takers: Mapping[str, str]) -> Backend:
    """Return `candidate` if it can be used; raise what is wrong with it, or what looking at it raised."""
    if not isinstance(candidate, Backend):
        raise _RefusedError(f"registered a {type(candidate).__name__}, which is no Backend")
    name, formats = candidate.name, candidate.formats
    if not BACKEND_NAME.fullmatch(name) or not formats:
        raise _RefusedError("a backend needs a name of lower-case letters, digits and dashes, and formats")
    if name in takers or name in ACCELERATORS:
        taker = f" by plugin {takers[name]}" if name in takers else ", it is an accelerator's"
        raise _RefusedError(f"the backend name {name} is taken{taker}")
    if wrong := sorted(candidate.capabilities - CAPABILITIES):
        raise _RefusedError(f"unknown capabilities {', '.join(wrong)}")
    if wrong := sorted(set(candidate.obeys) - needs.FIELDS):
        raise _RefusedError(f"obeys names what needs no capability: {', '.join(wrong)}")
    return candidate


def _told(error: BaseException) -> str:
    what, place = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, origin(error)
    return f"{what} ({place})" if place else what


def _names(environ: Mapping[str, str], variable: str) -> set[str]:
    return {name.strip() for name in environ.get(variable, "").split(",") if name.strip()}


class _Register(list[Any]):
    """Gathers what one plugin registers."""

    def __call__(self, thing: Any) -> None:
        self.append(thing)


@dataclass(frozen=True, slots=True)
class _Listener:
    """A hook of one plugin, which may leave out arguments that it has no use for."""

    function: Callable[..., object]
    argnames: Sequence[str]

    def __call__(self, **arguments: Any) -> object:
        return self.function(**{name: arguments[name] for name in self.argnames})


def _within(limit_s: float, what: str, function: Callable[..., object], *args: Any) -> object:
    """Return what `function` returns, called in a thread of its own so that one that hangs stops nobody else.

    Raises whatever it raised, and `TimeoutError`.
    """
    outcome: list[tuple[object, BaseException | None]] = []

    def work() -> None:
        try:
            outcome.append((function(*args), None))
        except BaseException as error:  # noqa: BLE001  # raised again by the caller
            outcome.append((None, error))

    thread = threading.Thread(target=work, name="plugin-start", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise TimeoutError(f"{what} did not end within {limit_s:g} s")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value
