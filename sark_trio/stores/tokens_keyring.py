"""Tokens in the keyring of the desktop or the operating system (extra ``keyring``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import anyio.to_thread
from attrs import define

from sark_trio.errors import ConfigError, TransportNotAvailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["KeyringTokens"]


@final
@define(eq=False)
class KeyringTokens:
    """Keeps each text as a password of *service*, under its name as user.

    :raises TransportNotAvailableError: when it is first asked, the extra is not installed.
    """

    service: str = "sark_trio"

    async def load(self, name: str) -> str | None:
        """The text that was saved last as *name*.

        :raises ConfigError: the keyring is locked, or there is none.
        """
        text = await self._ask(lambda keyring: keyring.get_password(self.service, name))
        return None if text is None else str(text)

    async def save(self, name: str, text: str) -> None:
        """Keep *text* as *name*. The same errors as :meth:`load`."""
        await self._ask(lambda keyring: keyring.set_password(self.service, name, text))

    async def delete(self, name: str) -> None:
        """Forget *name*. The same errors as :meth:`load`."""
        if await self.load(name) is not None:
            await self._ask(lambda keyring: keyring.delete_password(self.service, name))

    async def _ask(self, question: Callable[[ModuleType], Any]) -> Any:
        # It may unlock by asking the user, which takes its time.
        return await anyio.to_thread.run_sync(_asked, question, abandon_on_cancel=True)


def _asked(question: Callable[[ModuleType], Any]) -> Any:
    try:
        import keyring  # noqa: PLC0415 (an extra)
        from keyring.errors import KeyringError  # noqa: PLC0415
    except ImportError:
        raise TransportNotAvailableError(
            "the keyring needs the extra 'keyring': pip install 'sark_trio[keyring]'"
        ) from None
    try:
        return question(keyring)
    except KeyringError as exc:
        raise ConfigError(f"the keyring refuses: {type(exc).__name__}") from exc
