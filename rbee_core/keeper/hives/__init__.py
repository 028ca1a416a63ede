"""The hive that a command speaks to: its address, starting one, opening a client of it."""
