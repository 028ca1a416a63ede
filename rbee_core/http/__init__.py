"""What every HTTP server of ours has in common: envelope, keys, Host and Origin, SSE, listening."""
