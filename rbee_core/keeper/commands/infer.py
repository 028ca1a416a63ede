"""`rbee infer`: checks what was asked before anything starts, runs the eight phases, and tells how they ended."""

import contextlib
import os
import time
from typing import Any

import click

from rbee_core import start, wire
from rbee_core.errors import RbeeError, RequestCanceled
from rbee_core.keeper.choosing_options import choosing_options
from rbee_core.keeper.flow import Flow
from rbee_core.keeper.hives import address
from rbee_core.keeper.hives.open import open_hive
from rbee_core.keeper.infer_options import build_inference, build_spawn, check_backend, check_timeout
from rbee_core.keeper.interrupt import Interrupted, deadline, interrupts
from rbee_core.keeper.options import all_of, in_sections, node_option
from rbee_core.keeper.screen.output import TextOut, write_all
from rbee_core.keeper.screen.phases import PhaseLog
from rbee_core.keeper.screen.render import screen_for
from rbee_core.keeper.tuning_options import lora_option
from rbee_core.settings import DEFAULT_MODEL, load
from rbee_core.streams import raw_stdout

SECTIONS = {
    "Prompt": ("prompt", "chat", "raw", "system"),
    "How tokens are chosen": (
        "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "seed", "sampling",
    ),
    "The text": ("max_tokens", "stop", "grammar", "json_schema", "regex", "logprobs"),
    "Where": ("node", "model", "lora", "backend", "device", "context", "slots", "no_queue", "timeout"),
    "Output": ("as_json", "quiet"),
}  # fmt: skip


@click.command("infer", cls=in_sections(SECTIONS))
@node_option("Where to run it.")
@click.option("--model", default=DEFAULT_MODEL, show_default=True, metavar="REF", help="Alias, path or reference.")
@click.argument("text", metavar="[PROMPT]", nargs=-1)
@click.option("--prompt", metavar="TEXT", help="The same as PROMPT.")
@click.option("--chat", is_flag=True, help="Insist on the model's chat template.")
@click.option("--raw", is_flag=True, help="Continue the prompt, without the chat template.")
@click.option("--system", metavar="TEXT", help="A system message; implies --chat.")
@click.option("--max-tokens", type=int, metavar="N", help="Stop after N tokens.")
@click.option("--temperature", type=float, metavar="X", help="0 is greedy; up to 2.")
@click.option("--top-p", type=float, metavar="X", help="The likeliest tokens up to this probability; 1 is off.")
@click.option("--top-k", type=int, metavar="N", help="So many likeliest tokens; 0 is off.")
@click.option("--min-p", type=float, metavar="X", help="No token below this share of the likeliest; 0 is off.")
@click.option("--repeat-penalty", type=float, metavar="X", help="1 is off.")
@click.option("--seed", type=int, metavar="N", help="The same seed gives the same text.")
@all_of(choosing_options)
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@lora_option
@click.option("--backend", metavar="NAME", help="Such as llamacpp-cpu, or cpu, cuda, metal.")
@click.option("--device", type=int, metavar="N", help="Index of the backend's device.")
@click.option("--context", type=int, metavar="N", help="Tokens of context for a new worker.")
@click.option("--slots", type=int, metavar="N", help="Requests that a new worker serves at a time.")
@click.option("--no-queue", is_flag=True, help="While all slots are busy, ask again 3 times instead of queueing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@click.option("--quiet", is_flag=True, help="Print the text alone.")
@click.option("--timeout", type=float, metavar="SECONDS", help="Give up when the command takes longer.")
def infer(**options: Any) -> int:
    """Ask a model PROMPT, or what stdin holds, on this machine or another.

    The prompt goes through the model's chat template; a model that has none continues it.
    Progress goes to stderr, the generated text alone to stdout. When no hive runs on this machine, one is started
    for this command and stopped again.
    """
    as_json, quiet = bool(options["as_json"]), bool(options["quiet"])
    phases = PhaseLog(screen_for(json=as_json, quiet=quiet))
    stdout = raw_stdout()
    out = TextOut(None if as_json else stdout)
    run = _Run(options, phases, out)
    code, error = run.finish()
    if as_json:
        data = {**(error.body() if error else {}), "text": out.text, "phases": phases.as_data(), **run.facts()}
        with contextlib.suppress(BrokenPipeError):
            write_all(stdout, wire.encode(data) + b"\n")
    return code


class _Run:
    """One run of the command, up to its exit code and its error."""

    def __init__(self, options: dict[str, Any], phases: PhaseLog, out: TextOut) -> None:
        self._options = options
        self._phases = phases
        self._out = out
        self._flow: Flow | None = None

    def facts(self) -> dict[str, Any]:
        """Return what is known of the inference, for --json."""
        return self._flow.outcome.as_data() if self._flow else {}

    def finish(self) -> tuple[int, RbeeError | None]:
        """Run to the end, whatever the end is; a failure has been shown when this returns."""
        try:
            self._run()
        except Interrupted as interrupted:
            return interrupted.exit_code, self._failed(RequestCanceled())
        except BrokenPipeError:
            return 1, None  # whoever read our output has seen enough
        except RbeeError as error:
            return error.exit_code, self._failed(error)
        return 0, None

    def _run(self) -> None:
        started = time.monotonic() if start.begun_at is None else start.begun_at
        settings = load(os.environ)
        address.parse(self._options["node"])
        spawn = build_spawn(self._options, settings)
        timeout_s = check_timeout(self._options)
        node, backend = self._options["node"], self._options["backend"]
        check = self._check_backend if backend else None
        with interrupts() as signals, deadline(timeout_s, started):
            request = build_inference(self._options, settings)  # may wait for stdin
            with open_hive(node, settings, signals, worker=not backend, check=check) as hive:
                queue = not self._options["no_queue"]
                self._flow = Flow(
                    spawn, request, self._phases, self._out, hive.mode, queue=queue, started=started
                )  # fmt: skip
                self._flow.run(hive.connect, settings)

    def _check_backend(self) -> None:
        """Refuse a backend that cannot run on this machine, before anything is started for it."""
        with self._phases.phase("4") as phase:
            check_backend(self._options["backend"])
        self._phases.forget(phase)

    def _failed(self, error: RbeeError) -> RbeeError:
        outcome = self._flow.outcome if self._flow else None
        if outcome is not None and outcome.streaming:
            error.message += f" (tokens {outcome.tokens}/{self._options['max_tokens'] or '?'})"
        self._phases.failed(error, outcome.log_path if outcome else "")
        return error
