"""Where a lake lies: a folder, or a bucket and prefix of an object store."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from headrace.lake.errors import BadRange

SCHEMES = ("s3",)
"""Of object stores that are tried: each creates an object only where there is none, whole and at once, and lists what it has just taken."""


class Place(NamedTuple):
    """`where`: a folder, or s3://BUCKET/PREFIX. Of an object store its endpoint (HTTP address), region and the profile of credentials; ""
    is what the environment says (AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE). No secret is ever in it."""

    where: str
    endpoint: str = ""
    region: str = ""
    profile: str = ""

    @property
    def remote(self) -> bool:
        return is_url(self.where)


def is_url(where: str) -> bool:
    return "://" in where


def bucket_of(where: str) -> str:
    """BUCKET/PREFIX of s3://BUCKET/PREFIX, without a slash at its end. Raises BadRange, and never repeats what may be a secret."""
    parts = urlsplit(where)
    if parts.scheme not in SCHEMES:
        raise BadRange(f"a lake lies in a folder or in {' or '.join(f'{one}://BUCKET/PREFIX' for one in SCHEMES)}: {parts.scheme}:// is not"
                       " built, since it is not tried whether it creates an object only where there is none")
    if set(parts.netloc) & set("@:") or parts.query:
        raise BadRange(f"the URL of a lake is {parts.scheme}://BUCKET/PREFIX and holds no secret and no option: give credentials as"
                       " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or by lake.profile, and lake.endpoint and lake.region by their keys")
    if not parts.netloc:
        raise BadRange(f"{where!r} names no bucket: write {parts.scheme}://BUCKET/PREFIX")
    return f"{parts.netloc}{parts.path}".rstrip("/")
