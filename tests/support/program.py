"""Moved to `rbee_kit.program`."""

from rbee_kit.program import *  # noqa: F403
