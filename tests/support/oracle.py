"""Moved to `rbee_kit.oracle`."""

from rbee_kit.oracle import *  # noqa: F403
