"""What one task does and many wait for: at most one at a time, and no waiter's end is its end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

import anyio
from anyio.abc import TaskGroup
from attrs import define, field

from sark_trio.auth.failures import failed
from sark_trio.auth.token import TokenRefused
from sark_trio.errors import ClientClosed, GatewayError

__all__ = ["Flights"]


@define(eq=False)
class _Flight:
    """One under way."""

    done: anyio.Event = field(factory=anyio.Event)
    error: GatewayError | None = None


@final
@define(eq=False)
class Flights:
    """Flies in the task group that it is given.

    :param limit_s: for one flight, seconds.
    """

    limit_s: float
    group: TaskGroup | None = field(default=None, init=False)
    _flight: _Flight | None = field(default=None, init=False)

    async def join(self, work: Callable[[], Awaitable[None]] | None = None) -> None:
        """Wait for the flight that is under way; if there is none, for *work*.

        :raises AuthenticationRequired: it failed; all who wait are told so.
        :raises ClientClosed: nothing flies any more.
        """
        flight = self._flight
        if flight is None:
            if work is None:
                return
            if self.group is None:
                raise ClientClosed("the transport is closed, or not running")
            flight = self._flight = _Flight()
            self.group.start_soon(self._fly, flight, work)
        await flight.done.wait()
        if flight.error is not None:
            raise flight.error.twin()

    @property
    def busy(self) -> bool:
        """Whether one is under way."""
        return self._flight is not None

    async def _fly(self, flight: _Flight, work: Callable[[], Awaitable[None]]) -> None:
        # What those who wait get when the transport is closed under this task.
        flight.error = ClientClosed("the transport was closed while authorizing")
        try:
            with anyio.fail_after(self.limit_s):
                await work()
            flight.error = None
        except GatewayError as exc:
            flight.error = exc
        except TimeoutError:
            flight.error = failed(f"there was no token within {self.limit_s:g} s")
        except TokenRefused as exc:
            flight.error = failed(str(exc))
        except Exception as exc:  # noqa: BLE001 - a callback's or a store's; its text may be secret
            flight.error = failed(type(exc).__name__)
            flight.error.__cause__ = exc
        finally:
            self._flight = None
            flight.done.set()
