"""What a hive counts, and how Prometheus reads it."""
