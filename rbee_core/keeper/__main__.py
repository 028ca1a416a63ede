"""`python -m rbee_core.keeper`."""

from rbee_core.start import rbee

rbee()
