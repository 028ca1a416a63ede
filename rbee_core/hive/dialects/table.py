"""All of them together: their rows, and who answers those.

Imported by hives only that have them: a hive of one command starts sooner without.
"""

from rbee_core.hive.api.table import OWN
from rbee_core.hive.dialects.anthropic import ANTHROPIC, AnthropicRoutes
from rbee_core.hive.dialects.models import ServedModels
from rbee_core.hive.dialects.ollama.fetching import FETCHING, FetchingRoutes
from rbee_core.hive.dialects.ollama.lines import Pace
from rbee_core.hive.dialects.ollama.looking import LOOKING, LookingRoutes
from rbee_core.hive.dialects.ollama.working import WORKING, WorkingRoutes
from rbee_core.hive.dialects.openai import OPENAI, OpenAiRoutes
from rbee_core.hive.dialects.responses import RESPONSES, ResponsesRoutes
from rbee_core.hive.dialects.talking import Talking
from rbee_core.hive.serving import Serving
from rbee_core.hive.supervisor import Supervisor

DIALECTS = (*OPENAI, *RESPONSES, *ANTHROPIC, *LOOKING, *WORKING, *FETCHING)
TABLE = (*OWN, *DIALECTS)
"""Whatever a hive can serve."""


def speakers(
    served: ServedModels,
    answers: Serving,
    supervisor: Supervisor,
    *,
    write_timeout_s: float,
    keep_alive_s: float,
    idle_timeout_s: float,
) -> list[object]:
    """Build the owners of `DIALECTS`."""
    talking = Talking(write_timeout_s, keep_alive_s, answers, served)
    pace = Pace(write_timeout_s, keep_alive_s)
    return [
        OpenAiRoutes(talking, served),
        ResponsesRoutes(talking),
        AnthropicRoutes(talking),
        LookingRoutes(served, idle_timeout_s),
        WorkingRoutes(pace, served, talking, supervisor),
        FetchingRoutes(pace, served, supervisor),
    ]
