"""Moved to `rbee_kit.waiting`."""

from rbee_kit.waiting import *  # noqa: F403
