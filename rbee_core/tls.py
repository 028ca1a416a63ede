"""TLS as a client: whom to trust, and what to say when that is not enough. Reads files: not on an event loop."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rbee_core.errors import HiveUntrusted, InvalidRequest

NAME_THE_AUTHORITY = "set RBEE_CA_FILE to the certificate of the authority that signed it, or to its own"
# What OpenSSL calls X509_V_ERR_…: what to do about it.
_HINTS = {
    9: "renew it, or correct the clock",
    10: "renew it, or correct the clock",
    18: NAME_THE_AUTHORITY,
    19: NAME_THE_AUTHORITY,
    20: NAME_THE_AUTHORITY,
    21: NAME_THE_AUTHORITY,
    62: "call the hive by a name that its certificate is for",
    64: "call the hive by a name that its certificate is for",
}


class LateContext(ssl.SSLContext):
    """A context that reads the certificates of the system's authorities when it is first used."""

    _read = False

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Begin a connection of asyncio's."""
        self._read_once()
        return super().wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        """Begin a connection of a blocking program's."""
        self._read_once()
        return super().wrap_socket(*args, **kwargs)

    def _read_once(self) -> None:
        if not self._read:
            self._read = True
            self.load_default_certs()


@contextmanager
def certificates_later() -> Generator[None]:
    """Let the contexts that are made within the block read the system's authorities when they are first used."""
    made: list[ssl.SSLContext] = []
    before = ssl.SSLContext.load_default_certs

    def note(self: ssl.SSLContext, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        del purpose
        made.append(self)

    ssl.SSLContext.load_default_certs = note
    ssl.SSLContext.set_default_verify_paths = note
    try:
        yield
    finally:
        ssl.SSLContext.load_default_certs = before
        del ssl.SSLContext.set_default_verify_paths  # which is inherited
    for context in made:
        context.__class__ = LateContext


def client_context(ca_file: str) -> ssl.SSLContext:
    """Return a context that trusts the authorities in `ca_file`, or the system's if that is "".

    Raises `InvalidRequest` for a file that holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # an SSLError is one too
        why = "it holds no certificate" if isinstance(error, ssl.SSLError) else (error.strerror or str(error)).lower()
        hint = "RBEE_CA_FILE names a file of certificates in PEM form"
        raise InvalidRequest(f"Cannot read {ca_file} as ca_file: {why}", hint=hint) from error


def distrust(address: str, error: BaseException | None) -> HiveUntrusted | None:
    """Return what to say if TLS is why `error` came, else None."""
    innermost: ssl.SSLError | None = None  # aiohttp's own, around it, are SSLErrors too
    while error is not None:
        innermost = error if isinstance(error, ssl.SSLError) else innermost
        error = error.__cause__ or error.__context__
    if innermost is None:
        return None
    if isinstance(innermost, ssl.SSLCertVerificationError):
        why = f"its certificate is refused ({innermost.verify_message.rstrip('.')})"
        hint = _HINTS.get(innermost.verify_code, f"look at it with `openssl s_client -connect {address}`")
        return HiveUntrusted(address=address, why=why, hint=hint)
    why = (innermost.reason or "the connection is no TLS").replace("_", " ").lower()
    return HiveUntrusted(address=address, why=why, hint="leave https:// out if the hive speaks plain HTTP")
