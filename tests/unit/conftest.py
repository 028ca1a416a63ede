"""How Hypothesis looks for counterexamples here: without a clock, as a busy machine is no counterexample."""

from hypothesis import HealthCheck, settings

settings.register_profile("rbee", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rbee")
