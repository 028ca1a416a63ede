"""A backend without a GPU or a download: it learns which word follows which in a text file."""

from rbee_core.backend import Backend, Device, Estimate, hookimpl


class NgramBackend(Backend):
    """What the hive and the command line ask about. Only `load` runs in the worker."""

    name = "ngram"
    accelerator = "cpu"
    formats = frozenset({"text"})
    capabilities = frozenset({"stream", "cancel", "seed"})
    priority = -10

    def devices(self):
        """Name the one device."""
        return [Device("cpu", "this computer")]

    def estimate(self, model, options):
        """Guess the memory that `model` takes once it is learnt: a hundred bytes for each in the file."""
        return Estimate(100 * model.size_bytes, 0, 0, options.context_tokens or 4096)

    def load(self, model, device, options, progress):
        """Learn the text, in the worker's process."""
        from rbee_backend_ngram.engine import learn

        return learn(model, options, progress)


@hookimpl
def rbee_register_backends(register):
    """Offer the backend to rbee."""
    register(NgramBackend())


@hookimpl
def rbee_register_model_sources(register):
    """Offer the place where its models come from."""
    from rbee_backend_ngram.source import TextSource

    register(TextSource())
