"""Certificates for servers of tests, made by the `openssl` program."""

import ssl
import subprocess
from pathlib import Path


def self_signed(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """Make a certificate for `name`, such as ``IP:127.0.0.1``; return it, and the context of a server that shows it."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", certificate, "-subj", "/CN=rbee-test", "-addext", f"subjectAltName={name}",
        ],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
