"""`rbee bench`: how quickly a model starts, reads and writes on this machine, and what that takes.

What no client of an endpoint can see is measured here; another server is asked the same beside it, with `--url`.
"""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import psutil

from rbee_core import start as program
from rbee_core import wire
from rbee_core.errors import InvalidRequest, RbeeError
from rbee_core.keeper.commands.bench import plot
from rbee_core.keeper.commands.bench.asking import Ask, OfEndpoint, OfWorker, together
from rbee_core.keeper.commands.bench.figures import HEADERS, Report, Speed, Start, cells, speed_of, start_lines
from rbee_core.keeper.fetching import provision
from rbee_core.keeper.flow import READY, ended
from rbee_core.keeper.hives import address
from rbee_core.keeper.hives.open import Mode, open_hive
from rbee_core.keeper.infer_options import check_timeout, model_for, proper_text
from rbee_core.keeper.interrupt import deadline, interrupts
from rbee_core.keeper.options import in_sections, json_option
from rbee_core.keeper.screen.render import Screen, screen_for
from rbee_core.keeper.screen.show import show_json, show_table
from rbee_core.settings import DEFAULT_MODEL, Settings, load

if TYPE_CHECKING:
    from rbee_core.client import HiveClient

HERE = "rbee"
LOAD_POLL_S = 0.05
NO_ADDRESS = "it must begin with http:// or https://"

SECTIONS = {
    "What is measured": ("model", "backend", "device", "context", "slots", "url", "url_model"),
    "How": ("streams", "rounds", "tokens", "words", "timeout"),
    "Output": ("plot_file", "as_json"),
}


def web_addresses(_: click.Context, __: click.Parameter, urls: Sequence[str]) -> Sequence[str]:
    """Refuse what is no address of an endpoint."""
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise click.BadParameter(f"{url!r}: {NO_ADDRESS}")
    return urls


def writable_file(_: click.Context, __: click.Parameter, path: str | None) -> Path | None:
    """Refuse a file in a folder that is not there, before minutes are spent on it."""
    if path is not None and not Path(path).absolute().parent.is_dir():
        raise click.BadParameter(f"there is no folder for {path!r}")
    return Path(path) if path is not None else None


@click.command("bench", cls=in_sections(SECTIONS))
@click.option("--model", default=DEFAULT_MODEL, show_default=True, metavar="REF", help="Alias, path or reference.")
@click.option("--backend", metavar="NAME", callback=proper_text, help="Such as llamacpp-cpu, or cpu, cuda, metal.")
@click.option("--device", type=int, metavar="N", help="Index of the backend's device.")
@click.option("--context", type=int, metavar="N", help="Tokens of context for a new worker.")
@click.option("--slots", type=int, metavar="N", help="Requests that a new worker serves at a time.")
@click.option(
    "--url", multiple=True, callback=web_addresses, metavar="URL", help="Ask this OpenAI endpoint too; may be repeated."
)
@click.option("--url-model", default="", metavar="NAME", help="Its model; without it, the first that it names.")
@click.option("--streams", type=click.IntRange(1, 64), metavar="N", help="Texts at a time; as many as slots.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, metavar="N", help="Of each.")
@click.option("--tokens", type=click.IntRange(2, 4096), default=64, show_default=True, metavar="N", help="Of a text.")
@click.option(
    "--words", type=click.IntRange(1, 20_000), default=200, show_default=True, metavar="N", help="Of a prompt."
)
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up when the command takes longer.")
@click.option(
    "--plot", "plot_file", type=click.Path(dir_okay=False), callback=writable_file, metavar="FILE", help="Draw an SVG."
)
@json_option
def bench(**options: Any) -> None:
    """Measure a model on this machine, and other servers beside it.

    Says how it starts, the memory it takes, tokens per second, the first token's time, and what the hive adds.
    One text at a time, then as many as the worker has slots; medians over the rounds. Prompts begin differently, so
    that nothing of them is remembered. When no hive runs here, one is started and stopped again.
    """
    settings = load(os.environ)
    timeout_s = check_timeout(options)
    screen = screen_for(json=options["as_json"], quiet=False)
    with interrupts() as signals, deadline(timeout_s, program.begun_at):
        endpoints = {url: OfEndpoint(url, options["url_model"]) for url in options["url"]}
        spawn = spawn_of(options, settings)
        began = time.monotonic()
        with open_hive(address.LOCALHOST, settings, signals, worker=False) as hive:
            client = hive.connect()
            hive_s = time.monotonic() - began if hive.mode is Mode.EPHEMERAL else None
            with started(client, spawn, screen, hive_s, stays=hive.mode is Mode.PERSISTENT) as (worker, begun):
                ask = OfWorker(client.another, worker.worker_id)
                report = measured(options, begun, {HERE: ask, **endpoints}, screen, cpu_of_hive(worker.pid))
    tell(report, options)


def spawn_of(options: Mapping[str, Any], settings: Settings) -> wire.SpawnRequest:
    """Return what the worker is started with. Raises `InvalidRequest`."""
    return wire.build(
        wire.SpawnRequest,
        lambda field: f"--{ {'model_ref': 'model', 'context_tokens': 'context'}.get(field, field) }",
        model_ref=model_for(options["model"], address.LOCALHOST, settings),
        backend=options["backend"],
        device=options["device"],
        context_tokens=options["context"],
        slots=options["slots"],
    )


@contextmanager
def started(
    client: "HiveClient", spawn: wire.SpawnRequest, screen: Screen, hive_s: float | None, *, stays: bool
) -> "Generator[tuple[wire.WorkerInfo, Start]]":
    """Have the model loaded while the block runs; a hive that `stays` keeps the worker only if it was there before."""
    phases_s = {} if hive_s is None else {"hive": round(hive_s, 3)}
    moment = time.monotonic()
    wanted = wire.DownloadRequest(model_ref=spawn.model_ref, backend=spawn.backend)
    provision(client, wanted, screen, goes_on=stays)
    phases_s["model"], moment = round(time.monotonic() - moment, 3), time.monotonic()
    there = {worker.worker_id for worker in client.list_workers()}
    worker_id = client.spawn(spawn).worker_id
    try:
        worker = ready(client, worker_id, screen)
        if worker_id not in there:
            phases_s["load"] = round(time.monotonic() - moment, 3)
        estimated, resident = worker.reserved_bytes, resident_bytes(worker.pid)
        begun = Start(worker.model_ref, worker.backend, worker.device, worker.slots, phases_s, estimated, resident)
        yield worker, begun
    finally:
        if stays and worker_id not in there:
            with contextlib.suppress(RbeeError):  # it may be gone by itself
                client.stop_worker(worker_id)


def ready(client: "HiveClient", worker_id: str, screen: Screen) -> wire.WorkerInfo:
    """Wait until the model is loaded; how long that may take is the hive's to say."""
    screen.start("Loading the model")
    while (worker := client.worker(worker_id)).state not in READY:
        if worker.state != "loading":
            raise ended(worker)
        screen.tick(worker.progress)
        time.sleep(LOAD_POLL_S)
    screen.end("")
    return worker


def measured(
    options: Mapping[str, Any],
    begun: Start,
    places: Mapping[str, Ask],
    screen: Screen,
    cpu_s: Callable[[], float | None],
) -> Report:
    """Measure every place with one stream, then with several.

    Places take turns in each round, so that what else the machine does is everybody's.
    """
    speeds: list[Speed] = []
    for streams in sorted({1, options["streams"] or begun.slots}):
        screen.start(f"{streams} at a time, {options['rounds']} rounds")
        rounds: dict[str, list[Any]] = {place: [] for place in places}
        for ask in places.values():
            together(ask, streams, options["words"], 2, lambda: None)  # what is done only once is done now
        for _ in range(options["rounds"]):
            for place, ask in places.items():
                sees = cpu_s if place == HERE else lambda: None
                rounds[place].append(together(ask, streams, options["words"], options["tokens"], sees))
                screen.tick()
        screen.end("")
        speeds += [speed_of(place, came) for place, came in rounds.items()]
    return Report(begun, speeds)


def cpu_of_hive(worker_pid: int) -> Callable[[], float | None]:
    """Return what tells how much processor time the hive has taken, in seconds: the parent of its worker."""
    hive: psutil.Process | None = None
    with contextlib.suppress(psutil.Error):
        hive = psutil.Process(worker_pid).parent()

    def taken() -> float | None:
        with contextlib.suppress(psutil.Error):
            if hive is not None:
                times = hive.cpu_times()
                return times.user + times.system
        return None

    return taken


def resident_bytes(pid: int) -> int | None:
    """Return the memory that a process has, None if it cannot be seen."""
    try:
        return psutil.Process(pid).memory_info().rss if pid else None
    except psutil.Error:
        return None


def tell(report: Report, options: Mapping[str, Any]) -> None:
    """Print the report, and draw it."""
    path: Path | None = options["plot_file"]
    if path is not None:
        try:
            path.write_text(plot.draw(report.start.model, report.speeds), encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"Invalid --plot: {path} cannot be written: {error.strerror}") from None
    if options["as_json"]:
        show_json(report)
        return
    for line in start_lines(report.start):
        click.echo(line)
    click.echo()
    show_table(HEADERS, [cells(speed) for speed in report.speeds])
