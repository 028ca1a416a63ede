"""How text is drawn from a model where a request does not say: for every request, whichever way it comes."""

TEMPERATURE = 0.8
TOP_K = 40
TOP_P = 0.95
MIN_P = 0.05
REPEAT_PENALTY = 1.0
PENALTY_WINDOW = 64
XTC_THRESHOLD = 0.1
DRY_BASE = 1.75
DRY_ALLOWED_LENGTH = 2
DRY_WINDOW = 1024
DRY_BREAKERS = ("\n", ":", '"', "*")
MIROSTAT_TAU = 5.0
MIROSTAT_ETA = 0.1
