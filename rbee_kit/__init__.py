"""The conformance kit: tells whether a backend keeps the contract of `rbee_core.backend`.

`pytest --pyargs rbee_kit --backend NAME --model REF` runs the backend part of rbee's specification against any
installed backend, in a process and an RBEE_HOME of its own a scenario. It drives the real programs only: nothing in
here is imported by rbee, and no scenario looks inside a plugin. The kit has a version of its own, because a backend
that passed yesterday's scenarios may not pass tomorrow's.
"""

__version__ = "1.2.0"
