"""What a call between two processes carries and over what it goes: one token and one authority for all processes of a deployment.

Set once at an entry point (`use`), before the first client or server is made: a hundred clients are made deep in the rooms, and none of
them may talk in the clear because somebody forgot to hand it down.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Access:
    """`token`: what callers show and servers ask for, "" for none. `ca`: PEM of the authority that signed the servers' certificates; with
    it calls go over TLS. `cert`, `key`: PEM paths of this process's servers."""

    token: str = field(default="", repr=False)
    ca: str = ""
    cert: str = ""
    key: str = ""

    @property
    def tls(self) -> bool:
        return bool(self.ca or self.cert)

    @property
    def safe(self) -> bool:
        """Whether others than this machine may reach a server under it."""
        return bool(self.token and self.cert and self.key)


_used = Access()


def use(access: Access) -> None:
    """Have every client and server that this process makes from now on follow `access`."""
    global _used
    _used = access


def used() -> Access:
    return _used
