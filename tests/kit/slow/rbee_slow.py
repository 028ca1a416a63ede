"""A plugin whose import every command waits for, as one does that imports its engine at its top."""

import time

from rbee_core.backend import Backend, Device, hookimpl

IMPORT_S = 1.2  # an engine
time.sleep(IMPORT_S)


class SlowBackend(Backend):
    """Keeps nothing: it is only asked what it is."""

    name = "slow"
    accelerator = "cpu"
    formats = frozenset({"words"})

    def devices(self):
        return [Device("cpu", "a shelf")]

    def load(self, model, device, options, progress):
        raise NotImplementedError


@hookimpl
def rbee_register_backends(register):
    register(SlowBackend())
