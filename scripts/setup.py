"""Set up a virtual environment with rbee in it, showing progress, and say in one sentence what is missing.

Standard library only, and written for old Pythons too, so that a too old one gets a sentence instead of a traceback.
Called by the Makefile; what it installs is the `--extras` of pyproject.toml.
"""

from __future__ import print_function

import argparse
import os
import re
import shutil
import subprocess
import sys

MINIMUM = (3, 11)
STEP = re.compile(r"\[\s*(\d+)/(\d+)\]")
KEPT_LINES = 40


def say(text):
    """Show `text` now, on stderr: stdout belongs to the command that the set-up is for."""
    sys.stderr.write(text)
    sys.stderr.flush()


def missing():
    """Return a sentence about what this machine lacks, or an empty string."""
    if sys.version_info < MINIMUM:
        found = "%d.%d" % sys.version_info[:2]
        return "rbee needs Python 3.11 or newer, this is %s: run `make PYTHON=python3.12 ...`." % found
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "Python's venv module is missing: install the package python3-venv."
    for names, what in ((("cc", "gcc", "clang"), "C"), (("c++", "g++", "clang++"), "C++")):
        if not any(shutil.which(name) for name in names):
            return "a %s compiler is missing, which llama-cpp-python needs: install gcc and g++, or clang." % what
    return ""


def install(python, arguments):
    """Run pip, show what it does in one line that moves, and everything if it fails."""
    command = [python, "-m", "pip", "install", "--verbose", "--disable-pip-version-check"] + arguments
    environment = dict(os.environ, CMAKE_BUILD_PARALLEL_LEVEL=str(os.cpu_count() or 1), PYTHONUNBUFFERED="1")
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, universal_newlines=True
    )
    lines, shown = [], ""
    for line in process.stdout:
        lines = (lines + [line])[-KEPT_LINES:]
        shown = show(line.strip(), shown)
    if process.wait():
        print("\n" + "".join(lines), file=sys.stderr)
        sys.exit("setting up failed: pip ended with %d; its last lines are above." % process.returncode)
    say("\r\033[K" if sys.stderr.isatty() else "")


def show(line, shown):
    """Show a pip line that means progress, if it says something new; return what is shown now."""
    step = STEP.match(line)
    if step:
        done, total = int(step.group(1)), int(step.group(2))
        text = "building llama.cpp: %d of %d files" % (done, total)
        if not sys.stderr.isatty() and done % 25 and done != total:
            return shown
    elif line.startswith(("Collecting ", "Downloading ", "Building wheel", "Installing collected")):
        text = line[:100]
        if not sys.stderr.isatty() and not line.startswith(("Building wheel", "Installing collected")):
            return shown
    else:
        return shown
    if text != shown:
        say("\r\033[K%s" % text if sys.stderr.isatty() else "%s\n" % text)
    return text


def main():
    """Create the environment if needed and install rbee into it, editable."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--venv", required=True)
    parser.add_argument("--extras", required=True)
    options = parser.parse_args()
    lack = missing()
    if lack:
        sys.exit(lack)
    python = os.path.join(options.venv, "bin", "python")
    if not os.path.exists(python):
        say("creating %s\n" % options.venv)
        subprocess.check_call([sys.executable, "-m", "venv", options.venv])
    say("installing rbee; the first build of llama-cpp-python takes a few minutes, later ones are cached\n")
    install(python, ["--editable", ".[%s]" % options.extras])


if __name__ == "__main__":
    main()
