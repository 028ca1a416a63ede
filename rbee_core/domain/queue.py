"""Who waits, and in which order: clients take turns, and the requests of one client keep their own order."""

from collections import deque
from collections.abc import Iterator

from rbee_core.domain.events import RequestWanted
from rbee_core.domain.worker import Ticket


class FairQueue:
    """Requests that wait for the same thing. How many may wait is decided by the one who pushes.

    A client that comes goes behind all others that wait, and behind them again each time one of its requests leaves.
    So between two of its turns every other client has at most one, however many requests that one has brought.
    """

    def __init__(self) -> None:
        self._turns: dict[str, deque[RequestWanted]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._turns.values()))

    def __iter__(self) -> Iterator[RequestWanted]:
        """Go through the requests in the order in which they would leave, if nobody else came."""
        rounds = max(map(len, self._turns.values()), default=0)
        return (queue[n] for n in range(rounds) for queue in self._turns.values() if n < len(queue))

    def push(self, request: RequestWanted) -> None:
        """Put a request behind its client's others."""
        self._turns.setdefault(request.client, deque()).append(request)

    def pop(self) -> RequestWanted:
        """Take the first request; its client goes to the end."""
        client, queue = next(iter(self._turns.items()))
        request = queue.popleft()
        del self._turns[client]
        if queue:
            self._turns[client] = queue
        return request

    def remove(self, ticket: Ticket) -> bool:
        """Take a request out from wherever it stands; return whether it was here."""
        for client, queue in self._turns.items():
            for request in queue:
                if request.ticket == ticket:
                    queue.remove(request)
                    if not queue:
                        del self._turns[client]
                    return True
        return False
