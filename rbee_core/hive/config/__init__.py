"""What the node's owner has settled for single models, and taking it in again while the hive runs."""
