"""The kit is worth something only if it fails: each broken backend on the scenario that names its fault."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.kit.plugins.rbee_words_faults import SOME_TOGETHER

PATIENCE_S = 500  # a run of the whole kit on a machine that others use too
PLUGINS = Path(__file__).parent / "plugins"
SLOW = Path(__file__).parent / "slow"
pytestmark = pytest.mark.timeout(PATIENCE_S + 20)
TEXT = "die Biene fliegt über blühende Wiesen und sammelt Nektar 🐝 蜂蜜 для улья and brings it home to the hive"

WAITS = "who no longer waits frees the slot within a second"
ALONE = "texts that are written together are each what they are alone"
BRIM = "a text ends for its length where it fills the context"
KEPT = "a prompt that was read before gives the same text"
VECTORS = "a text has one vector, alone and among others"
GUESSED = "a text is the same whether or not it is guessed ahead"
TEMPLATE = "a template of one's own takes the place of the model's"
TOLD = "tools and their results are told to the model"
SEEDS = "the same seed gives the same text"
STOPS = "a worker that is stopped ends politely and leaves nothing"


def sampler(field: str, what_comes: str) -> str:
    return f"a sampler does what its name says [{field}-{what_comes}]"


# Which scenario names the fault, and a part of the reason that it gives.
NAMED_BY = {
    "ignores-cancel": (f"{WAITS} [is receiving a long text-cancel]", "does `generate` look at `cancel`"),
    "reads-on": (f"{WAITS} [waits for a long prompt to be read-are gone]", "still held its slot"),
    "ignores-seed": ("the same seed gives the same text", "a seed gave two texts"),
    "shares-chance": ("a seed gives the same text whoever else is written for", "a seed gave two texts"),
    "leaks-a-child": (STOPS, "no process of the worker is left"),
    "dies-on-stop": (STOPS, "otherwise than by itself: exit code 3"),
    "never-stops": (STOPS, "did not stop when asked; does `close` end?"),
    "fails-to-close": (STOPS, "exit code 1 (the last that it raised: OSError: the shelf is locked)"),
    "splits-characters": ("characters of several bytes arrive whole", "a character is broken"),
    "yields-pairs": ("tokens are counted truly", "tokens were counted as they came"),
    "ends-early": ("no more tokens than asked for [16]", "after 15 of 16 tokens"),
    "never-ready": ("a load shows its progress and becomes ready", "stopped making progress"),
    "swallows-errors": (
        "a model that cannot be loaded is refused and harms nobody [random bytes]",
        "a model that is none was loaded",
    ),
    "falls-back": ("a model is loaded where the backend says that it runs", "on cpu instead of cuda"),
    "needs-nothing": ("the memory that a model takes is reckoned before it is loaded", "its estimate is of 0 bytes"),
    "holds-back": ("text comes while it is generated, not at the end", "the first token came after"),
    "cuts-prompts": ("a prompt longer than the context is refused with both numbers", "it was not refused"),
    "swaps-numbers": ("a prompt longer than the context is refused with both numbers", "swapped?"),
    "stumbles": ("tokens arrive in order, with one last word", "KeyError: 'the key of this plugin'"),
    "counts-three-more": (BRIM, "more than a context of 128 holds"),
    "counts-pieces": (BRIM, "short prompts are counted wrongly"),
    "counts-nothing": (BRIM, "`generate` should yield PromptDone"),
    "ends-in-silence": (BRIM, "generate ended without Finished"),
    "stops-at-the-brim": (BRIM, "Finished should say length there"),
    "forgets-seed-0": (SEEDS, "with 0 it was"),
    "hashes-seeds": (SEEDS, "another text in the next worker's process"),
    "is-spoilt": ("a text after a cancelled one is not disturbed", "it is another text"),
    "mixes-texts": (ALONE, "a text with a seed is another beside others"),
    "stops-all": (ALONE, "a text ended for its length after"),
    "keeps-slots": (ALONE, "1 of 3 slots are still taken"),
    "reads-alone": ("a long prompt does not hold up a text that is being written", "read a prompt in pieces"),
    "says-kept": (KEPT, "`reuse_prompt` was false"),
    "hides-kept": (KEPT, "those that were kept count too"),
    "remembers-wrongly": (KEPT, "what is kept of a prompt changes the text"),
    "penalises-nobody": (sampler("frequency_penalty", "another text comes"), "frequency_penalty makes no difference"),
    "forgets-bias": (sampler("logit_bias", "one token comes again and again"), "a bias of 100 is to leave one token"),
    "ends-anyway": (sampler("min_tokens", "the end comes later"), "and it ended after 4"),
    "ends-after-all": (sampler("ignore_eos", "no end comes"), "and it ended after 4"),
    "likes-others": (sampler("top_n_sigma", "the likeliest text comes"), "leaves only the likeliest token"),
    "says-logits": ("each token says how likely it was [0]", "is the logarithm of no probability"),
    "names-too-few": ("each token says how likely it was [5]", "5 tokens were to be named at each place, and 4 were"),
    "names-others": ("each token says how likely it was [5]", "at temperature 0 the likeliest token comes"),
    "writes-as-it-likes": ("a text has the form that it is to have [grammar]", "a text does not fit its grammar"),
    "cuts-forms": ("a text fits a schema [schema]", "a text does not fit its json_schema"),
    "stumbles-over-forms": (
        "a form that is none is refused and harms nobody [regular expression]",
        "should be refused with InvalidRequest",
    ),
    "forgets-to-normalise": ("vectors have length 1, or their own", "the vector of"),
    "mixes-vectors": (VECTORS, "is `index` another's?"),
    "lets-others-count": (VECTORS, "do the others count"),
    "pools-as-it-likes": ("what pools the tokens of a text makes a difference, or is refused", "the same vector"),
    "scores-by-place": ("a document has one score, alone and among others", "among others and"),
    "guesses-for-good": (GUESSED, "guessing ahead changes a text"),
    "hides-guesses": (GUESSED, "guesses were right of 0"),
    "likes-its-own": (TEMPLATE, "is the given template used"),
    "stumbles-over-templates": (TEMPLATE, "ends its own request, with InvalidRequest"),
    "reckons-in-16-bits": (
        "keys and values that are kept in fewer bits take less memory",
        "`estimate` should look at `LoadOptions.tuning`",
    ),
    "stumbles-in-a-flash": ("attention is computed the one way and the other", "'flash'"),
    "takes-any-adapter": ("an adapter that is none is refused and harms nobody", "exit code 0"),
    "keeps-tools-secret": (TOLD, "the model is not told of it"),
    "forgets-results": (TOLD, "the model is not told what a tool answered"),
    "tools-without-form": (
        "a call comes where it has to, and none where there may be none",
        "the arguments of a call do not fit their schema",
    ),
    "looks-ahead-only": ("what belongs into a gap is written with both its sides in view", "`suffix` is not read"),
    "is-moody": ("a text ends before a stop string", "at temperature 0 one request gave two texts"),
}
BATCHING = ("two texts are generated at a time", *(NAMED_BY[fault][0] for fault in ("stops-all", "reads-alone")))
TOGETHER = {fault: backend for backend, several in SOME_TOGETHER.items() for fault in several}
RUNS = dict.fromkeys(TOGETHER.get(fault, fault) for fault in NAMED_BY)


@dataclass
class Run:
    exit_code: int
    terminal: str
    verdict: dict
    badge: str

    def rows(self) -> dict[str, tuple[str, str]]:
        return {row["scenario"]: (row["outcome"], row["reason"]) for row in self.verdict["scenarios"]}


@pytest.fixture
def kit(tmp_path: Path):
    """Runs the kit as its users do: from an empty folder, with one command."""
    model = tmp_path / "meadow.words"
    model.write_text(TEXT, encoding="utf-8")
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(backend: str, *options: str, model: str = f"words:{model}", plugins: Path = PLUGINS) -> Run:
        argv = [sys.executable, "-P", "-m", "pytest", "--pyargs", "rbee_kit", "--backend", backend, "--model", model]
        argv += ["--rbee-verdict", "out/verdict.json", "--rbee-badge", "out/badge.svg", "-p", "no:cacheprovider"]
        for plugin in (
            "hypothesispytest",
            "anyio",
        ):  # of the tests' environment: importing them takes longer than a run
            argv += ["-p", f"no:{plugin}"]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment["PYTHONPATH"] = str(plugins)
        done = subprocess.run(
            [*argv, *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        written = folder / "out" / "verdict.json"
        verdict = json.loads(written.read_text(encoding="utf-8")) if written.exists() else {}
        badge = written.with_name("badge.svg").read_text(encoding="utf-8") if verdict else ""
        return Run(done.returncode, done.stdout + done.stderr, verdict, badge)

    return run


def keyword(title: str) -> str:
    """Return what `-k` selects a scenario by: its function's name, and the words of its example."""
    scenario, _, example = title.partition(" [")
    words = [word for word in re.findall(r"\w+", example) if word != "and"]
    return " and ".join([re.sub(r"[^a-z0-9]+", "_", scenario), *words])


def test_a_good_backend_conforms(kit) -> None:
    run = kit("words")
    assert run.exit_code == 0, run.terminal
    assert run.verdict["verdict"] == "conforms"
    rows = run.rows()
    assert {title for title, _ in NAMED_BY.values()} - {*BATCHING} <= {
        title for title, row in rows.items() if row[0] == "passed"
    }
    assert {title for title, row in rows.items() if row[0] == "skipped"} == {
        *BATCHING,
        *(sampler(f, "another text comes") for f in ("dry_multiplier", "typical_p", "xtc_probability", "mirostat")),
    }  # fmt: skip
    assert {"kit", "rbee", "plugin", "python", "platform"} <= run.verdict["versions"].keys()
    assert run.verdict["versions"]["plugin"] == "rbee-words 1.0"
    assert "words with words:" in run.terminal
    assert ET.fromstring(run.badge).get("aria-label") == "rbee kit 2.1.0: words: conforms"


@pytest.mark.parametrize("broken", RUNS)
def test_a_broken_backend_fails_where_its_fault_is_named(kit, broken: str) -> None:
    """Faults that do not touch each other share a run, which costs less than a run for each."""
    named = [NAMED_BY[fault] for fault in SOME_TOGETHER.get(broken, (broken,))]
    run = kit(f"words-{broken}", "-k", " or ".join(keyword(title) for title, _ in named), "--load-stall-s", "2")
    assert run.exit_code == 1, run.terminal
    for title, why in named:
        outcome, reason = run.rows()[title]
        assert (outcome, why in reason) == ("failed", True), reason
    assert run.verdict["verdict"] == "does not conform"
    assert "does not conform" in run.badge


def test_what_a_plugin_raised_is_in_the_verdict_and_on_the_terminal(kit) -> None:
    title, _ = NAMED_BY["stumbles"]
    run = kit("words-stumbles", "-k", keyword(title))
    [row] = [row for row in run.verdict["scenarios"] if row["scenario"] == title]
    assert row["step"] == "Then the text came whole"
    assert 'raise KeyError("the key of this plugin")' in row["raised"]
    assert row["raised"] in run.terminal
    assert "call_fixture_func" not in run.terminal


def test_a_slow_import_is_named_with_its_seconds(kit) -> None:
    run = kit("slow", "-k", "no_command_waits", plugins=SLOW)
    assert run.exit_code == 1, run.terminal
    outcome, reason = run.rows()["no command waits long for the plugin"]
    assert (outcome, "importing its plugin takes 1." in reason) == ("failed", True), reason


def test_what_is_kept_and_not_declared_is_a_warning(kit) -> None:
    run = kit("words-is-modest", "-k", "seed")
    assert run.exit_code == 0, run.terminal
    assert run.rows()["the same seed gives the same text"] == ("undeclared", "passes: declare it")
    assert "UndeclaredCapability: words-is-modest can do seed and does not declare it" in run.terminal
    assert run.verdict["verdict"] == "was not fully checked"


def test_a_backend_that_nobody_brings_is_a_usage_error(kit) -> None:
    run = kit("quantum")
    assert run.exit_code == 4
    assert "no installed plugin brings the backend quantum" in run.terminal
    assert "words-ignores-cancel" in run.terminal
    assert run.verdict == {}
