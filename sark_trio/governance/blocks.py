"""The kill switch: what the operator has switched off, whatever any policy says. White."""

from __future__ import annotations

from typing import Final, final

from attrs import define, field, frozen

from sark_trio import errors

__all__ = ["Block", "Blocks"]

#: Each is one key of a dictionary; an operator who blocks more writes a policy.
BLOCKS_MAX: Final = 10_000


@final
@frozen(kw_only=True)
class Block:
    """Something that is switched off. What is ``None`` stands for all.

    :param reason: the operator's words, for the audit log.
    """

    server: str | None = None
    tool: str | None = None
    principal: str | None = None
    reason: str = field(default="", eq=False)

    def denial(self) -> errors.Denied:
        """The error of what it stops. The operator's words are not in it."""
        named = (("tool", self.tool), ("server", self.server), ("caller", self.principal))
        what = " of ".join(f"{kind} {name!r}" for kind, name in named if name is not None)
        return errors.Denied(
            f"{what or 'everything'} is blocked by the operator",
            reason="blocked",
            server=self.server,
        )


@final
@define(eq=False)
class Blocks:
    """All that is switched off. It takes effect with the next question, and in the same step."""

    _by_scope: dict[tuple[str | None, str | None, str | None], Block] = field(
        factory=dict, init=False
    )

    def add(self, block: Block) -> None:
        """Switch off what *block* names.

        :raises ValueError: there are too many, or a tool is named without its server.
        """
        if block.tool is not None and block.server is None:
            raise ValueError("a tool is blocked by its server's name and its own")
        scope = block.server, block.tool, block.principal
        if scope not in self._by_scope and len(self._by_scope) >= BLOCKS_MAX:
            raise ValueError(f"more than {BLOCKS_MAX} blocks")
        self._by_scope[scope] = block

    def remove(self, block: Block) -> bool:
        """Switch it on again; whether it was off."""
        return self._by_scope.pop((block.server, block.tool, block.principal), None) is not None

    def covering(self, server: str | None, tool: str | None, principal: str) -> Block | None:
        """The block that stops *principal* from using *tool* of *server*, if one does.

        Of several it is the one that names most, the server before all. Without *tool* (or
        *server*) the question is about the whole, which blocks of a part leave on.
        """
        blocks = self._by_scope
        if not blocks:
            return None
        for one in (server, None):
            for other in (tool, None):
                for who in (principal, None):
                    found = blocks.get((one, other, who))
                    if found is not None:
                        return found
        return None

    def all(self) -> tuple[Block, ...]:
        """Everything that is off."""
        return tuple(self._by_scope.values())
