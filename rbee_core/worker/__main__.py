"""`python -m rbee_core.worker`: how the hive starts a worker."""

from rbee_core.worker.main import main

main()
