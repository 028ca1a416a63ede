"""Processes of one hive: how each is started, watched, guarded, ended and logged."""
