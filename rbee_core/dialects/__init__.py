"""Dialects: how clients that were written for somebody else's HTTP speak to a hive. Pure codecs at the edge.

One dialect is a codec, and all codecs meet in one internal request and one stream of parts:

    body ── read ──> `wire.PoolInference` … the pool, a worker … events ── `Reader` ──> parts ── write ──> bytes

* `talk` has what a codec is: a `Talk` is one request being answered. `read` makes it of a body, or refuses.
* `parts` has what answers are made of, whatever the model's notation: text, reasoning, calls of tools, an end.
* `fields` has the tables in which each codec says what of a request it honours, ignores and refuses.

No I/O here, no clock, no chance: the time, ids and names come with a `Moment`. Foreign shapes are msgspec structs that
ignore what they do not know; a wrong value is an `InvalidRequest` that names the field. What an error looks like is
the dialect's own affair too. The hive's side is `rbee_core.hive.api.talking`.

To add a dialect: a package here with its structs, its table of fields, and a subclass of `Talk` for each route that
generates; a module in `rbee_core/hive/api` with its rows, whose handlers call `Talking.answer`.
"""
