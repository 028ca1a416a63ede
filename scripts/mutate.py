"""Break the program in many ways, one at a time, and show which scenario notices: `mutate.py [NAME]...`.

Works on a copy of what git knows of this folder, with an environment of its own that borrows the packages of the one
that runs this. A mutation that nothing notices makes the exit code 1.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
import venv
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 600
SCRIPT = "#!{python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n"


@dataclass(frozen=True)
class Mutation:
    """One change of one line, and how pytest picks the scenarios that are run against it."""

    name: str
    file: str
    old: str
    new: str
    picked: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "an ephemeral hive is not stopped",
        "rbee_core/keeper/hives/ephemeral.py",
        "            hive.stop(within_s)\n",
        "            pass\n",
        ("-m", "B11"),
    ),
    Mutation(
        "a worker's note is called workers.db",
        "rbee_core/home.py",
        'return self.run_dir / f"{worker_id}.json"',
        'return self.run_dir / "workers.db"',
        ("-m", "B3.5 or B7.3 or B9.1"),
    ),
    Mutation(
        "phase 1 is not skipped",
        "rbee_core/keeper/flow.py",
        'self._phases.say("Skipped (ephemeral mode)")',
        'self._phases.say("No idle worker")',
        ("-m", "B7 or B11.3"),
    ),
    Mutation(
        "a model is fetched again each time",
        "rbee_core/models/provision.py",
        "if row is not None and row.fetched and (not formats or row.format in formats):",
        "if row is not None and row.fetched and not formats:",
        ("-m", "B4 or B6.1"),
    ),
    Mutation(
        "no row is written to the catalog",
        "rbee_core/models/catalog.py",
        "            _insert(self._db, row)\n\n    def remove",
        "            pass\n\n    def remove",
        ("-m", "B4 or B6.2"),
    ),
    Mutation(
        "health has no version",
        "rbee_core/hive/api/hive.py",
        'wire.Health(status="alive", version=__version__,',
        'wire.Health(status="alive", version="",',
        ("-m", "B5.2 or B7.2"),
    ),
    Mutation(
        "a shutdown asks no worker",
        "rbee_core/hive/processes/following.py",
        "            await self._link.ask_to_stop(worker, within_s)",
        "            pass",
        ("-m", "B8.2"),
    ),
    Mutation(
        "Ctrl+C exits with 1",
        "rbee_core/edge.py",
        "self.exit_code = 128 + number",
        "self.exit_code = 1",
        ("-m", "B10", "-k", "a_command_ends"),
    ),
    Mutation(
        "the seed is ignored",
        "rbee_plugins/llamacpp/sampling.py",
        "seed = secrets.randbits(32) if asked is None else asked",
        "seed = secrets.randbits(32)",
        ("-k", "the_same_seed"),
    ),
    Mutation(
        "an idle worker is not reused",
        "rbee_core/hive/api/workers.py",
        "worker=self._describe(worker) if worker else None",
        "worker=None",
        ("-k", "idle_worker_is_reused"),
    ),
    Mutation(
        "SIGTERM is not handled",
        "rbee_core/hive/processes/orders.py",
        "stops = (signal.SIGTERM, signal.SIGINT)",
        "stops = (signal.SIGINT,)",
        ("-m", "B8.1"),
    ),
    Mutation(
        "a route has another name than the document says",
        "docs/mvp-flow.md",
        "`POST /v1/workers/spawn`",
        "`POST /v1/workers/start`",
        ("-m", "B10.2"),
    ),
    Mutation(
        "a program is missing from the wheel",
        "pyproject.toml",
        'rbee-hive = "rbee_core.start:rbee_hive"\n',
        "",
        ("-m", "B1.1 or B1.2"),
    ),
)


def copy(folder: Path) -> Path:
    """Copy what git knows of this folder, as it is now."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def environment(folder: Path, copied: Path) -> Path:
    """Make an environment whose rbee is the copy, and return its Python."""
    venv.create(folder, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # Paths that stand in a .pth file are not searched for further .pth files, so an editable rbee stays out of sight.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "copy.pth").write_text("\n".join([str(copied), *borrowed]))
    python = folder / "bin" / "python"
    for name, target in tomllib.loads((copied / "pyproject.toml").read_text())["project"]["scripts"].items():
        module, _, function = target.partition(":")
        (folder / "bin" / name).write_text(SCRIPT.format(python=python, module=module, function=function))
        (folder / "bin" / name).chmod(0o755)
    return python


def try_out(mutation: Mutation, copied: Path, python: Path) -> list[str]:
    """Apply a mutation, run its scenarios, take it back; return the scenarios that failed."""
    path, results = copied / mutation.file, copied / "results.xml"
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        sys.exit(f"{mutation.name}: {mutation.file} has {text.count(mutation.old)} times {mutation.old!r}")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    results.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "features", "-q", "-p", "no:cacheprovider", f"--junitxml={results}"]
    try:
        done = subprocess.run(
            [*command, *mutation.picked], cwd=copied, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    finally:
        path.write_text(text, encoding="utf-8")
    cases = list(ET.parse(results).iter("testcase")) if results.exists() else []
    if not cases:
        sys.exit(f"{mutation.name}: nothing ran\n{done.stdout}{done.stderr}")
    return sorted({case.get("name", "") for case in cases if any(bad.tag in ("failure", "error") for bad in case)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which mutations; all without it")
    wanted = parser.parse_args().names
    missed = 0
    with tempfile.TemporaryDirectory(prefix="rbee-mutate-") as folder:
        copied = copy(Path(folder, "copy"))
        python = environment(Path(folder, "environment"), copied)
        print("| Mutation | Line | Scenarios that failed |\n|---|---|---|", flush=True)
        for mutation in MUTATIONS:
            if not wanted or mutation.name in wanted:
                caught = try_out(mutation, copied, python)
                missed += not caught
                print(f"| {mutation.name} | {mutation.file} | {', '.join(caught) or 'NONE'} |", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
