"""One call of llama.cpp for all who take part, and one choice of a token for each that generates.

Belongs to the loop's thread, and is the only place that changes what a request has read and made.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from rbee_core.errors import PromptTooLong
from rbee_plugins.llamacpp import native
from rbee_plugins.llamacpp.jobs import Ended, Job, Made, Read, Ready
from rbee_plugins.llamacpp.places import Places
from rbee_plugins.llamacpp.planner import Share


class Calls:
    """Computes what was planned. `end` is told who is through; `places` are kept up to what the context holds."""

    def __init__(
        self,
        model: native.NativeModel,
        context: native.Context,
        places: Places,
        end: Callable[[Job, Ended], None],
    ) -> None:
        self._model = model
        self._context = context
        self._places = places
        self._end = end
        self._ends: dict[int, bool] = {}

    def compute(self, shares: Sequence[Share[Job]]) -> bool:
        """Compute what each has its share of, choose what follows, and say so; whether that was done in one call."""
        # llama.cpp computes sequences together only where their numbers follow each other in the call.
        shares = sorted(shares, key=lambda share: share.lane.sequence)
        parts, end = [self._part(share) for share in shares], 0
        status = self._context.decode(parts)
        if status == native.NO_ROOM and (len(shares) > 1 or shares[0].draft):
            for share in shares:
                self.compute([replace(share, draft=())])
            return False
        if status != native.DECODED:
            self._stopped(status, shares)
            return False
        rows: list[tuple[Share[Job], int]] = []
        for share, part in zip(shares, parts, strict=True):
            job, end = share.lane, end + len(part.tokens)
            self._places.held[job.sequence].tokens += part.tokens
            if job.unread:
                job.read += share.tokens
                job.events.put(Read(job.read, len(job.prompt)) if job.unread else self._ready(job))
            if part.rows:
                rows.append((share, end - part.rows))
        chosen = [(share, self._chosen(share, row)) for share, row in rows]
        for share, made in chosen:
            self._made(share, made)
        return True

    def _ready(self, job: Job) -> Ready:
        return Ready(len(job.prompt), job.cached, job.why)

    def _chosen(self, share: Share[Job], row: int) -> list[Made | Ended]:
        """Return what follows that row, and the next ones as long as their guesses prove right.

        Guesses change nothing: each token is chosen as it would be without them, from numbers that are those of the
        real text, and who chooses never hears of one that was wrong.
        """
        job, made = share.lane, list[Made | Ended]()
        try:
            for guess in (*share.draft, None):
                token = job.chooser.choose(self._context, row + len(made))
                if self._is_end(token):
                    return [*made, Ended("stop")]
                likely = self._likely(job, row + len(made), token)
                ended = job.chooser.ended
                last = ended or job.made + len(made) + 1 >= job.limit
                guesses = 0 if made else len(share.draft)
                made.append(Made(token, last, likely, guesses, guessed=token == guess))
                if last:
                    return [*made, Ended("stop" if ended else "length")]
                if token != guess:
                    break
        except BaseException as error:  # noqa: BLE001  # a grammar that nothing fits, above all; the others go on
            made.append(Ended("cancelled", error))
        return made

    def _likely(self, job: Job, row: int, token: int) -> native.Likely | None:
        return None if job.logprobs is None else job.chooser.logprobs(self._context, row, token, job.logprobs)

    def _part(self, share: Share[Job]) -> native.Part:
        job = share.lane
        if job.unread:
            tokens = job.prompt[job.read : job.read + share.tokens]
            return native.Part(job.sequence, job.read, tokens, int(share.tokens == job.unread))
        tokens = (job.next, *share.draft)
        return native.Part(job.sequence, len(job.prompt) + job.made - 1, tokens, len(tokens))

    def _made(self, share: Share[Job], made: Sequence[Made | Ended]) -> None:
        """Hand over what came next, and forget the guesses that were wrong."""
        job = share.lane
        if share.draft:
            right = sum(isinstance(event, Made) and event.guessed for event in made)
            self._cut(job, len(share.draft) - right)
        for event in made:
            if isinstance(event, Ended):
                self._end(job, event)
                return
            job.next, job.made = event.token, job.made + 1
            if job.lookup is not None:
                job.lookup.follow(event.token)
            job.events.put(event)

    def _cut(self, job: Job, count: int) -> None:
        if count:
            known = self._places.held[job.sequence].tokens
            del known[-count:]
            self._context.cut(job.sequence, len(known))

    def _is_end(self, token: int) -> bool:
        if (known := self._ends.get(token)) is None:
            known = self._ends[token] = self._model.is_end(token)
        return known

    def _stopped(self, status: int, shares: Sequence[Share[Job]]) -> None:
        """Nothing of the call counts. Either nobody in it waited any more, or its one request has no room."""
        for share in shares:
            job = share.lane
            known = self._places.held[job.sequence].tokens
            if not self._context.keep(job.sequence, len(known)):
                known.clear()
            if status == native.ABORTED:
                self._end(job, Ended("cancelled"))
            elif job.unread:
                error = PromptTooLong(prompt_tokens=len(job.prompt), context_tokens=self._context.tokens)
                self._end(job, Ended("cancelled", error))
            else:
                self._end(job, Ended("length"))
