"""Secrets that are looked for in everything that leaves the house, however they are dressed.

A :class:`Canary` is a secret with characters that every encoding changes, around a core that
only base64 and hexadecimal change: a piece of it is found, too.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

from attrs import field, frozen

__all__ = ["Canary", "leaks"]

#: Changed by URL encoding, JSON, ``repr`` and shells.
_AWKWARD: Final = '"\\/+&=%<'


@frozen
class Canary:
    """One secret, and where it was put.

    :param awkward: characters around the core; not every place can hold every one.
    """

    where: str
    awkward: str = _AWKWARD
    core: str = field(factory=lambda: f"kanarie{secrets.token_hex(8)}")

    @property
    def secret(self) -> str:
        """What is put there."""
        return f"{self.awkward}{self.core}{self.awkward}"

    def forms(self) -> frozenset[bytes]:
        """All that gives it away."""
        whole, core = self.secret, self.core.encode()
        forms = {
            core,
            whole.encode(),
            quote(whole, safe="").encode(),
            quote_plus(whole).encode(),
            json.dumps(whole)[1:-1].encode(),
            repr(whole)[1:-1].encode(),
            core.hex().encode(),
            core.hex().upper().encode(),
            core.hex(":").encode(),
        }
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for before in range(3):
                # What stands before it shifts every digit; the ends depend on the neighbours.
                digits = encode(b"\0" * before + core)
                forms.add(digits[(before * 8 + 5) // 6 : len(digits) // 4 * 4 - 4])
        return frozenset(forms)

    def is_in(self, data: bytes | str) -> bool:
        """Whether *data* gives it away."""
        octets = data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace")
        return any(form in octets for form in self.forms())


def leaks(outputs: Iterable[tuple[str, bytes | str]], canaries: Iterable[Canary]) -> list[str]:
    """``canary in output`` for each that is found."""
    named = [(canary.where, sorted(canary.forms())) for canary in canaries]
    found = []
    for name, data in outputs:
        octets = data if isinstance(data, bytes) else data.encode("utf-8", "backslashreplace")
        found += [f"{where} in {name}" for where, forms in named if any(f in octets for f in forms)]
    return found
