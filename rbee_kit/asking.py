"""`rbee infer` as scenarios use it."""

from rbee_kit.program import Home, Program, Result

PROMPT = "Once upon a time"
TOKENS = "8"
UNTIL_KILLED = "4000"


class Asking:
    """`rbee infer` with the scenario's model and backend; options given later win. A `raw` prompt is continued."""

    def __init__(self, home: Home, model: str, backend: str) -> None:
        self._home = home
        self._options = ["--model", model, "--backend", backend]

    def start(
        self, *options: str, prompt: str | None = PROMPT, stdin: bytes | None = None, raw: bool = True
    ) -> Program:
        """Start it."""
        given = [*self._options, *(["--raw"] if raw else []), *([] if prompt is None else ["--prompt", prompt])]
        return self._home.start("rbee", "infer", "--max-tokens", TOKENS, *given, *options, stdin=stdin)

    def run(self, *options: str, prompt: str | None = PROMPT, stdin: bytes | None = None, raw: bool = True) -> Result:
        """Run it to its end."""
        return self.start(*options, prompt=prompt, stdin=stdin, raw=raw).finish()
