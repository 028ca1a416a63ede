"""`python -m rbee_core.keeper`."""

from rbee_core.keeper.main import main

main()
