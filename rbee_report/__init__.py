"""rbee's own acceptance report: which of its behaviours a run of the specification showed.

Loaded by the conftest.py of this clone, and in no wheel: those who check a backend of their own get the verdict of
`rbee_kit`. Imported by nothing that is installed.
"""
