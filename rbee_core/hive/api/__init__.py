"""The hive's HTTP routes: reading requests, asking, shaping answers. Decides nothing."""
