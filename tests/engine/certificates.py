"""Certificates of a CA of the test's own."""

import os
import subprocess
from pathlib import Path

from tde_replication.hosts.account import service_account


class Authority:
    """A CA below `directory`; its certificate is `file`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory / name
        self._directory.mkdir()
        self.file = self._directory / "ca.pem"
        self._key = self._directory / "ca.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2",
                 "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.file)  # fmt: skip
        self.file.chmod(0o644)

    def certificate(self, address: str) -> tuple[Path, Path]:
        """A server's certificate and its key, which the service account owns."""
        certificate, key = self._directory / "server.pem", self._directory / "server.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2",
                 "-subj", f"/CN={address}", "-addext", f"subjectAltName=IP:{address}",
                 "-addext", "basicConstraints=critical,CA:FALSE",
                 "-CA", self.file, "-CAkey", self._key, "-keyout", key, "-out", certificate)  # fmt: skip
        account = service_account()
        for path in (certificate, key):
            os.chown(path, account.uid, account.gid)
        return certificate, key


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
