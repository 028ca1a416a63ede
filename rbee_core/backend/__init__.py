"""All that a plugin may import, and the manual for writing one.

A plugin is an installed distribution with an entry point in the group ``rbee``; rbee's own plugins use the same
group. Its module implements any of the hooks in `rbee_core.backend.hookspecs`, marked with `hookimpl`::

    # pyproject.toml of your package
    [project.entry-points.rbee]
    shout = "rbee_backend_shout"

    # rbee_backend_shout.py
    from rbee_core.backend import Backend, Device, Engine, EngineInfo, Finished, Token, hookimpl

    class ShoutEngine(Engine):
        def info(self):
            return EngineInfo(context_tokens=4096)

        def generate(self, request, cancel):
            for word in request.text().split():
                if cancel.is_set():
                    return
                yield Token(word.upper() + " ")
            yield Finished("stop")

    class ShoutBackend(Backend):
        name, accelerator, formats = "shout", "cpu", frozenset({"gguf"})
        capabilities = frozenset({"stream", "cancel"})

        def devices(self):
            return [Device(id="cpu", name="this computer")]

        def load(self, model, device, options, progress):
            return ShoutEngine()

    @hookimpl
    def rbee_register_backends(register):
        register(ShoutBackend())

Rules of the house:

* Hooks are synchronous and only register. Whatever is slow or heavy (importing an engine, touching a GPU driver)
  waits until `Backend.availability`, `Backend.devices` or `Backend.load` is called.
* A plugin returns data and engines. It starts no server and no process, and never sees the hive.
* `Backend.load` and everything on `Engine` run in the worker process only; the rest also runs in the hive.
* Which model files exist, which worker runs where, stop strings, token limits, time limits and HTTP are rbee's
  work, not the engine's.
* Raise the errors of `rbee_core.errors` where one fits; anything else counts as a crash of the load or request,
  and is logged with its traceback in the worker's log.

``rbee plugins`` shows what was found, and why a plugin did not load. ``RBEE_DISABLE_PLUGINS=name,name`` blocks
plugins, ``RBEE_LOAD_PLUGINS=name,name`` loads only those. Plugins are code that runs with your rights: install
only what you trust; rbee never loads one from the working directory or from a model folder.
"""

from pluggy import HookimplMarker

from rbee_core.backend.base import (
    Accelerator,
    Availability,
    Backend,
    Device,
    Engine,
    EngineInfo,
    Estimate,
    LoadOptions,
    LocalModel,
    ModelRef,
    ModelSource,
    OnDisk,
    Progress,
    RemoteFile,
    RemoteModel,
    StopPolicy,
)
from rbee_core.backend.generation import (
    CancelToken,
    EngineEvent,
    Finished,
    GenerateRequest,
    PromptDone,
    PromptProgress,
    Token,
    TokenLogprob,
)
from rbee_core.backend.talk import Message, Style, Tool, ToolCall
from rbee_core.backend.vectors import Embedded, EmbedRequest, Ranked, RerankRequest
from rbee_core.domain.tuning import Adapter, Tuning

hookimpl = HookimplMarker("rbee")

__all__ = [
    "Accelerator",
    "Adapter",
    "Availability",
    "Backend",
    "CancelToken",
    "Device",
    "EmbedRequest",
    "Embedded",
    "Engine",
    "EngineEvent",
    "EngineInfo",
    "Estimate",
    "Finished",
    "GenerateRequest",
    "LoadOptions",
    "LocalModel",
    "Message",
    "ModelRef",
    "ModelSource",
    "OnDisk",
    "Progress",
    "PromptDone",
    "PromptProgress",
    "Ranked",
    "RemoteFile",
    "RemoteModel",
    "RerankRequest",
    "StopPolicy",
    "Style",
    "Token",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "Tuning",
    "hookimpl",
]
