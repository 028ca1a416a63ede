"""`python -m rbee_core.worker`: how the hive starts a worker."""

from rbee_core.start import llm_worker_rbee

llm_worker_rbee()
