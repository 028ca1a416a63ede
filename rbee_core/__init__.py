"""rbee: a person's own machines as one private LLM inference pool.

The package root owns the version and nothing else, so that importing it costs nothing.
"""

__version__ = "0.1.0"
API_VERSION = "v1"
