"""Passwords, tokens and keys are masked before a text is shown: in errors, logs and files that a job writes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["MASK", "mask", "mask_uri", "masked"]

MASK = "***"
"""What stands in the place of a secret."""

SENSITIVE = r"token|passw|secret|credential|(?:api|access|account|private)[._-]?key|\bsig|\bsas\b"
"""Names whose values are not shown."""


def mask(text: str) -> str:
    """Return a text without the passwords of URIs, and without the values of names that look secret.

    Examples
    --------
    >>> mask("s3a://key:abc@bucket/rows?token=xyz&part=1")
    's3a://key:***@bucket/rows?token=***&part=1'
    """
    text = re.sub(r"(//[^/:@\s'\"]*):[^\s'\"]*@", rf"\1:{MASK}@", text)  # a key of S3 may hold a slash
    return re.sub(
        rf"([\w.-]*(?:{SENSITIVE})[\w.-]*\s*[=:]\s*)[^\s&,;'\"]+",
        rf"\1{MASK}",
        text,
        flags=re.IGNORECASE,
    )


def mask_uri(uri: str) -> str:
    """Return a text that is one URI, or a path, without its secrets; they may hold any character.

    Examples
    --------
    >>> mask_uri("abfss://rows@account/a b?sv=2024&sig=abc")
    'abfss://rows@account/a b?sv=2024&sig=***'
    """
    return mask(re.sub(r"^([\w+.-]+://[^/:@]*):.*@", rf"\1:{MASK}@", uri, flags=re.DOTALL))


def masked(value: Any, name: str = "") -> Any:
    """Return plain data without secrets: values whose name looks like one, and passwords in URIs.

    Parameters
    ----------
    value : object
        Data that JSON can hold.
    name : str, default ""
        The key that it is stored under.
    """
    if name and re.search(SENSITIVE, name, re.IGNORECASE) and value is not None:
        return MASK
    if isinstance(value, Mapping):
        return {key: masked(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item) for item in value]
    return mask(value) if isinstance(value, str) else value
