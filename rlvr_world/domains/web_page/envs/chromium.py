"""Which Chromium runs, and what it may reach: this machine's loopback and files, and hosts that the user names."""

from __future__ import annotations

import shutil
from typing import Any
from urllib.parse import urlsplit

from rlvr_world.errors import InputError

VIEW = (1280, 720)
"""Width and height of the viewport in CSS pixels."""
PROFILE: dict[str, Any] = {
    "viewport": {"width": VIEW[0], "height": VIEW[1]},
    "locale": "en-US",
    "timezone_id": "UTC",
    "reduced_motion": "reduce",
    "service_workers": "block",  # what they request would go round the wall
    "accept_downloads": False,
}
"""The browser that pages see: the same on every machine."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def find_chromium(path: str, playwrights: str) -> str:
    """The Chromium to run: the one given, one on the PATH, or the one that Playwright installed."""
    names = (path,) if path else ("chromium", "chromium-browser", "google-chrome", playwrights)
    if found := next(filter(None, map(shutil.which, names)), None):
        return found
    place = f"at {path}" if path else "on this machine"
    mend = "install one with `apt-get install chromium` or `playwright install chromium`, or give its path"
    raise InputError(f"browser: no Chromium {place}; {mend}")


def is_outside(url: str, allow: tuple[str, ...]) -> bool:
    """Whether a request leaves this machine for a host that the user has not named."""
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob", "about") and parts.hostname not in (*_LOOPBACK, *allow)


def launch_arguments(allow: tuple[str, ...]) -> list[str]:
    """Switches that leave Chromium no name and no address but loopback, no proxy and no background traffic."""
    rules = ["MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in (*_LOOPBACK, "[::1]", *allow))]
    return [
        f"--host-resolver-rules={', '.join(rules)}",
        *("--no-proxy-server", "--disable-quic", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
        "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    ]
