"""`python -m rbee_core.hive`: how `rbee` starts a hive."""

from rbee_core.hive.main import main

main()
