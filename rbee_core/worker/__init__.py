"""The worker: one model on one device behind HTTP, in a process of its own that the hive starts and watches."""
