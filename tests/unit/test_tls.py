"""What is said when TLS says no."""

import ssl

import pytest

from rbee_core import tls


def refused(code: int, message: str) -> Exception:
    """Return a refusal as a transport wraps it."""
    cause = ssl.SSLCertVerificationError(1, "certificate verify failed")
    cause.verify_code, cause.verify_message = code, message
    error = OSError("cannot connect")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (10, "certificate has expired", "renew it, or correct the clock"),
        (18, "self-signed certificate", tls.NAME_THE_AUTHORITY),
        (20, "unable to get local issuer certificate", tls.NAME_THE_AUTHORITY),
        (62, "Hostname mismatch.", "call the hive by a name that its certificate is for"),
        (23, "certificate revoked", "look at it with `openssl s_client -connect h:1`"),
    ],
)  # fmt: skip
def test_a_refused_certificate_says_why_and_what_to_do(code: int, message: str, hint: str) -> None:
    said = tls.distrust("h:1", refused(code, message))
    assert said is not None
    assert str(said) == f"Cannot trust h:1: its certificate is refused ({message.rstrip('.')})"
    assert (said.code, said.hint) == ("HIVE_UNTRUSTED", hint)


def test_another_failure_is_none_of_tls() -> None:
    assert tls.distrust("h:1", ConnectionRefusedError(111, "Connection refused")) is None


def test_contexts_made_within_the_block_read_the_authorities_when_they_are_used() -> None:
    with tls.certificates_later():
        late = ssl.create_default_context()
    assert late.cert_store_stats()["x509"] == 0
    late.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="h")
    direct = ssl.create_default_context()
    assert late.cert_store_stats() == direct.cert_store_stats()
    assert (late.verify_mode, late.check_hostname) == (direct.verify_mode, direct.check_hostname)
    assert "set_default_verify_paths" not in vars(ssl.SSLContext)
