"""`python -m rbee_core.hive`: how `rbee` starts a hive."""

from rbee_core.start import rbee_hive

rbee_hive()
