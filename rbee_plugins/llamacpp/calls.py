"""One call of llama.cpp for all who take part, and one choice of a token for each that generates.

Belongs to the loop's thread, and is the only place that changes what a request has read and made.
"""

from collections.abc import Callable, Sequence

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

    def compute(self, shares: Sequence[Share[Job]]) -> None:
        """Compute what each has its share of, choose what follows, and say so."""
        # llama.cpp computes sequences together only where their numbers follow each other in the call.
        shares = sorted(shares, key=lambda share: share.lane.sequence)
        parts, row = [self._part(share) for share in shares], 0
        status = self._context.decode(parts)
        if status == native.NO_ROOM and len(shares) > 1:
            for share in shares:
                self.compute([share])
            return
        if status != native.DECODED:
            self._stopped(status, shares)
            return
        rows: list[tuple[Job, int]] = []
        for share, part in zip(shares, parts, strict=True):
            job, row = share.lane, row + share.tokens
            self._places.held[job.sequence].tokens += part.tokens
            if job.unread:
                job.read += share.tokens
                job.events.put(Read(job.read, len(job.prompt)) if job.unread else self._ready(job))
            if part.rows:
                rows.append((job, row - 1))
        made = [(job, self._chosen(job, row)) for job, row in rows]
        for job, token in made:
            if token is not None:
                self._made(job, token)

    def _ready(self, job: Job) -> Ready:
        return Ready(len(job.prompt), job.cached, job.why)

    def _chosen(self, job: Job, row: int) -> Made | None:
        """Return what follows that row; None if nothing can, and then only this job ends."""
        chooser = job.chooser
        try:
            token = chooser.choose(self._context, row)
            wanted = job.logprobs is not None and not self._is_end(token)
            likely = chooser.logprobs(self._context, row, token, job.logprobs or 0) if wanted else None
            return Made(token, chooser.ended or job.made + 1 >= job.limit, likely)
        except BaseException as error:  # noqa: BLE001  # a grammar that nothing fits, above all; the others go on
            self._end(job, Ended("cancelled", error))
            return None

    def _part(self, share: Share[Job]) -> native.Part:
        job = share.lane
        if job.unread:
            tokens = job.prompt[job.read : job.read + share.tokens]
            return native.Part(job.sequence, job.read, tokens, int(share.tokens == job.unread))
        return native.Part(job.sequence, len(job.prompt) + job.made - 1, (job.next,), 1)

    def _made(self, job: Job, made: Made) -> None:
        """`job` has one more token; that may have been its last."""
        if self._is_end(made.token):
            self._end(job, Ended("stop"))
            return
        job.next, job.made = made.token, job.made + 1
        job.events.put(made)
        if made.last:
            self._end(job, Ended("stop" if job.chooser.ended else "length"))

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
