"""The hive's routes for clients that were written for somebody else's HTTP; the codecs are `rbee_core.dialects`."""
