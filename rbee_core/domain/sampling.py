"""How text is drawn from a model where a request does not say: for every request, whichever way it comes."""

TEMPERATURE = 0.8
TOP_K = 40
TOP_P = 0.95
MIN_P = 0.05
REPEAT_PENALTY = 1.0
