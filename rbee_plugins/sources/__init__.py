"""Built-in model sources: files on this disk, files that installed packages ship, and Hugging Face.

Owns where references lead. Fetches nothing and writes nothing: a source names files, the hive transfers them.
"""

from collections.abc import Callable

from rbee_core.backend import ModelSource, hookimpl
from rbee_plugins.sources.huggingface import HuggingFaceSource
from rbee_plugins.sources.local import FileSource
from rbee_plugins.sources.package import PackageSource


@hookimpl
def rbee_register_model_sources(register: Callable[[ModelSource], None]) -> None:
    """Register the three sources; none of them does anything before it is asked."""
    register(FileSource())
    register(PackageSource())
    register(HuggingFaceSource())
