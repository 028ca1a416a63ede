"""The keeper: the `rbee` command. Talks HTTP to a hive; imports no engine and no server.

Every command lives in a module of its own that is imported when it runs, so that `rbee --help` costs no more than
Click. No module here imports `rbee_core.client` at its top: an ephemeral hive is to start while httpx loads.
"""
