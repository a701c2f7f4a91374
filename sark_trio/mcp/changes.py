"""What a client wants to hear of, and what it hears: MCP 2026-07-28, "Subscriptions".

Since 2026-07-28 one request, ``subscriptions/listen``, names all of it, and its stream carries
nothing else. Before, a server that declared so told of changes unasked, and of a resource after
``resources/subscribe``. :class:`Interest` is the wish in either, :class:`Change` what comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, final

from attrs import field, frozen

from sark_trio.mcp.messages import Notification

__all__ = ["ACKNOWLEDGED", "LISTEN", "Change", "Interest", "parse_change"]

LISTEN: Final = "subscriptions/listen"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
#: URIs and task ids of one subscription.
SUBJECTS_MAX: Final = 1_000

Kind = Literal["tools", "prompts", "resources", "resource", "task", "gap"]
_LISTS: Final[Mapping[str, Kind]] = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}
_UPDATED: Final = "notifications/resources/updated"
_TASKS: Final = frozenset({"notifications/tasks", "notifications/tasks/status"})


def _names(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_names(_: object, attribute: Any, value: tuple[object, ...]) -> None:
    if len(value) > SUBJECTS_MAX or not all(type(one) is str and one for one in value):
        raise ValueError(f"{attribute.name}: at most {SUBJECTS_MAX} strings")


@final
@frozen(kw_only=True)
class Interest:
    """What to hear of.

    :param resources: URIs of resources whose contents matter.
    :param tasks: ids of tasks whose status matters (``io.modelcontextprotocol/tasks``).
    :raises ValueError: too many of them, or no strings.
    """

    tools_list: bool = False
    prompts_list: bool = False
    resources_list: bool = False
    resources: tuple[str, ...] = field(default=(), converter=_names, validator=_check_names)
    tasks: tuple[str, ...] = field(default=(), converter=_names, validator=_check_names)

    def __bool__(self) -> bool:
        return bool(self.notifications())

    def notifications(self) -> dict[str, Any]:
        """The filter of ``subscriptions/listen``; what is not wanted is left out."""
        wanted: dict[str, Any] = {
            "toolsListChanged": self.tools_list,
            "promptsListChanged": self.prompts_list,
            "resourcesListChanged": self.resources_list,
            "resourceSubscriptions": list(self.resources),
            "taskIds": list(self.tasks),
        }
        return {name: value for name, value in wanted.items() if value}

    def wants(self, change: Change) -> bool:
        """Whether *change* is one of these."""
        match change.kind:
            case "tools":
                return self.tools_list
            case "prompts":
                return self.prompts_list
            case "resources":
                return self.resources_list
            case "resource":
                return _covers(self.resources, change.subject)
            case "task":
                return change.subject in self.tasks
        return True

    def unheard(self, acknowledged: Any) -> tuple[str, ...]:
        """The members of :meth:`notifications` that the server does not honour, or not whole."""
        agreed = acknowledged if isinstance(acknowledged, Mapping) else {}
        return tuple(
            name
            for name, wanted in self.notifications().items()
            if not _honoured(wanted, agreed.get(name))
        )


@final
@frozen
class Change:
    """Something changed.

    :param kind: the list of ``tools``, ``prompts`` or ``resources``, one ``resource``, one
        ``task``; or a ``gap``: changes may have been missed, so look again at all of it.
    :param subject: the URI of the resource, the id of the task.
    """

    kind: Kind
    subject: str | None = None
    #: The notification's parameters as they came.
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)


def parse_change(notification: Notification) -> Change | None:
    """What *notification* tells of; ``None`` if it is of another kind, or malformed."""
    method, params = notification.method, notification.params
    if method in _LISTS:
        return Change(_LISTS[method], None, params)
    if method == _UPDATED:
        uri = params.get("uri")
        return Change("resource", uri, params) if type(uri) is str else None
    if method in _TASKS:
        task_id = params.get("taskId")
        return Change("task", task_id, params) if type(task_id) is str else None
    return None


def _covers(uris: tuple[str, ...], uri: str | None) -> bool:
    """2025-11-25, "Subscriptions": the URI may be that of a sub-resource of the one named."""
    if uri is None:
        return False
    return any(uri == one or uri.startswith(one.rstrip("/") + "/") for one in uris)


def _honoured(wanted: Any, agreed: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(agreed, list) and all(one in agreed for one in wanted)
    return agreed is True
