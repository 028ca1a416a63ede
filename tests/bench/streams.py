"""A client that costs next to nothing: streams over plain sockets, with the moment at which each piece came."""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rbee_core import aio

_COUNT = re.compile(rb'"(?:completion_tokens|total_tokens|output_tokens|eval_count)": ?([1-9]\d*)')
_TEXT = re.compile(rb'"(?:token|text|content)": ?"[^"]')
_EVENT = re.compile(rb'"text": ?"')
_END = re.compile(rb'data: ?\[DONE\]|event: message_stop|"done": ?true|"error": ?\{')


@dataclass
class Stream:
    """One answer; times are seconds since the request was sent."""

    arrivals: list[float] = field(default_factory=list[float])
    tokens: int = 0
    body: bytes = b""

    @property
    def first_s(self) -> float:
        return self.arrivals[0]

    @property
    def last_s(self) -> float:
        return self.arrivals[-1]

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]


async def ask(url: str, body: Mapping[str, object], delay_s: float = 0.0) -> Stream:
    """Post `body` and read the stream to its end."""
    await aio.sleep(delay_s)
    parts = urlsplit(url)
    raw = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer x\r\nContent-Length: {len(raw)}\r\n\r\n"
    )
    stream = Stream()
    started = time.perf_counter()
    try:
        writer.write(head.encode() + raw)
        while chunk := await reader.read(65_536):
            stream.body += chunk
            if _TEXT.search(chunk):
                stream.arrivals.append(time.perf_counter() - started)
            if _END.search(stream.body, max(0, len(stream.body) - len(chunk) - 32)):
                break
    finally:
        writer.close()
    counts = _COUNT.findall(stream.body)
    if not stream.arrivals:
        raise RuntimeError(f"{url} answered {stream.body[-500:]!r}")
    # A server that does not count sends an event for each token, and one more at the end.
    stream.tokens = int(counts[0]) if counts else len(_EVENT.findall(stream.body)) - 1
    return stream


def ask_all(url: str, bodies: Sequence[Mapping[str, object]], delays_s: Sequence[float] = ()) -> list[Stream]:
    """Ask all at once, or each after its delay."""

    async def together() -> list[Stream]:
        waits = delays_s or [0.0] * len(bodies)
        return await asyncio.gather(*(ask(url, body, wait) for body, wait in zip(bodies, waits, strict=True)))

    return asyncio.run(together())


def rate(streams: Sequence[Stream]) -> float:
    """Return tokens per second of all of them together, reading the prompts included."""
    return sum(s.tokens for s in streams) / max(s.last_s for s in streams)
