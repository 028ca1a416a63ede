"""Moved to `rbee_kit.gherkin`."""

from rbee_kit.gherkin import *  # noqa: F403
