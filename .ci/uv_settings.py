"""Print pip's index settings as shell variables for uv, which reads neither pip.conf nor PIP_* variables.

Usage: eval "$(python .ci/uv_settings.py)"

What is set for uv already stays: its own settings win.
"""

import ast
import os
import shlex
import ssl
import subprocess
import sys

LISTS = {
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
}
"""Settings with several values: the variable, and what stands between its values."""
PLAIN = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("HTTP_PROXY", "HTTPS_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),  # PIP_DEFAULT_TIMEOUT
}


def pip_settings(listing: str) -> "dict[str, str]":
    """Read what ``pip config list`` prints; [install] wins over [global], and PIP_* over both."""
    found = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            key, equals, value = line.partition("=")
            if equals and key.startswith(section + "."):
                found[key[len(section) + 1 :].lower().replace("_", "-")] = str(ast.literal_eval(value))
    return found


def uv_variables(settings: "dict[str, str]") -> "dict[str, str]":
    """Return uv's variables for pip's settings."""
    variables = {name: settings[key] for key, names in PLAIN.items() if key in settings for name in names}
    variables.update(
        {name: between.join(settings[key].split()) for key, (name, between) in LISTS.items() if key in settings}
    )
    if settings.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        variables["UV_NO_INDEX"] = "1"  # of .ci/install: uv has a flag for it, and no variable
    if "cert" not in settings and ssl.get_default_verify_paths().cafile:
        variables["UV_SYSTEM_CERTS"] = "1"  # the certificates that this machine trusts
    variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip: every index is asked, none is first
    return variables


if __name__ == "__main__":
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    for name, value in uv_variables(pip_settings(listed.stdout)).items():
        if name not in os.environ:
            print(f"export {name}={shlex.quote(value)}")
