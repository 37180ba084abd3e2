"""What a browser is told that it may do with the pages, and which requests are not theirs."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

# No inline script or style, nothing from elsewhere, nobody's frame.
POLICY = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self';"
          " base-uri 'none'; frame-ancestors 'none'")
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin"}
DATA = {**HEADERS, "Cache-Control": "no-store"}
ASSET = {**HEADERS, "Cache-Control": "public, max-age=31536000, immutable"}


def foreign(headers: Mapping[str, str]) -> str:
    """"" for a request of our own pages or of no browser at all, else why it is refused. Browsers say where a POST comes from."""
    site = headers.get("sec-fetch-site")
    if site is not None and site != "same-origin":
        return f"this request was sent by another site's page (Sec-Fetch-Site: {site[:40]})"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
        return "this request was sent by another site's page (its Origin is not this host)"
    return ""
