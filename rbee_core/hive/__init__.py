"""The hive: the pool manager of one machine. design.md beside this file says why it is cut the way it is."""
