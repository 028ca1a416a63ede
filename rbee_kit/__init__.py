"""The conformance kit: tells whether a backend keeps the contract of `rbee_core.backend`.

`pytest --pyargs rbee_kit --backend NAME --model REF` runs the backend part of rbee's specification against any
installed backend. It drives the real programs only, and no scenario looks inside a plugin. Scenarios that only ask a
loaded model share a worker (`rbee_kit.ready`); all others have an RBEE_HOME and processes of their own. rbee imports
nothing of it but `rbee_kit.given`, as a plugin, where a scenario asks for that. The kit has a version of its own,
because a backend that passed yesterday's scenarios may not pass tomorrow's.
"""

__version__ = "2.1.0"
