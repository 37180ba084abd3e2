"""What is wrong with a server's certificate, in OpenSSL's words: librdkafka only says that it could not be verified."""

from __future__ import annotations

import socket
import ssl

from headrace.schemas.access import Cluster

WAIT_S = 3.0


def complaint(cluster: Cluster) -> str:
    """OpenSSL's sentence about the first bootstrap server whose certificate is bad ("certificate has expired"), "" for none."""
    for address in cluster.bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            context = ssl.create_default_context(cafile=cluster.ca or None)
            with socket.create_connection((host.strip("[]"), int(port)), WAIT_S) as plain:
                plain.settimeout(WAIT_S)
                with context.wrap_socket(plain, server_hostname=host.strip("[]")):
                    pass
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except (OSError, ValueError):
            continue
    return ""
