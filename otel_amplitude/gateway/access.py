"""Who may send: bearer tokens and TLS. Both are read again on `reload`, so that they can be renewed without a restart."""

from __future__ import annotations

import hmac
import ssl
from pathlib import Path

from otel_amplitude.errors import ConfigurationError

_MIN_TOKEN = 16


class Tokens:
    """The bearer tokens of a file, one a line; compared in constant time."""

    def __init__(self, path: str) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it can not be read, holds no token, or a short one.
        """
        self._path = path
        self._tokens: tuple[bytes, ...] = ()
        self.reload()

    def __repr__(self) -> str:
        return f"Tokens({self._path!r})"

    def reload(self) -> None:
        """Read the file again; on an error the tokens stay.

        Raises:
            ConfigurationError: as for the first time.
        """
        try:
            lines = Path(self._path).read_text(encoding="utf-8").split("\n")
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"--token-file {self._path} can not be read ({error}); give a text file with one token a line"
            ) from None
        tokens = tuple(token.encode() for line in lines if (token := line.strip()))
        if not tokens or min(map(len, tokens)) < _MIN_TOKEN:
            raise ConfigurationError(
                f"--token-file {self._path} must hold tokens of at least {_MIN_TOKEN} characters, one a line; make one with: openssl rand -hex 32"
            )
        self._tokens = tokens

    def allow(self, authorization: str | None) -> bool:
        """Say whether a header `Authorization` holds one of the tokens."""
        scheme, _, token = (authorization or "").partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        matches = [hmac.compare_digest(given, known) for known in self._tokens]  # all of them, so that time says nothing
        return scheme.lower() == "bearer" and any(matches)


class Tls:
    """The certificate of the server, and the authority of its clients."""

    def __init__(self, certificate: str, key: str | None = None, client_authority: str | None = None) -> None:
        """Load the files.

        Args:
            certificate: a file with the chain in PEM.
            key: its private key; None: in the same file.
            client_authority: clients must show a certificate of an authority in this file; None: they need none.

        Raises:
            ConfigurationError: a file can not be used.
        """
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.reload()
        if client_authority:
            self.context.verify_mode = ssl.CERT_REQUIRED
            try:
                self.context.load_verify_locations(client_authority)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(
                    f"--tls-client-ca {client_authority} can not be used ({error}); give certificates in PEM"
                ) from None

    def reload(self) -> None:
        """Load certificate and key again, for new connections.

        Raises:
            ConfigurationError: a file can not be used.
        """
        try:
            self.context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"--tls-cert {self._certificate} with --tls-key {self._key or 'in it'} can not be used ({error}); give both in PEM, not encrypted"
            ) from None
