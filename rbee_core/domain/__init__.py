"""Decisions without I/O: no asyncio, clock, file, process or environment is reachable from here."""
