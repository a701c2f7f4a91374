"""A stdio MCP server over an SQLite database: ``python -m sark_trio.cli.demo.database FILE``.

It trusts whoever can write to its standard input: it runs the SQL that it is given, also the
kind that destroys. That is what the gateway in front of it is for.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

from sark_trio.cli.demo.protocol import Json, Notify, Tool, ToolFailed, answer

__all__ = ["create", "main"]

PEOPLE = [
    (1, "Ada Lovelace", "ada@example.com", "London"),
    (2, "Grace Hopper", "grace@example.com", "New York"),
    (3, "Mary Jackson", "mary@example.com", "Hampton"),
]
#: About as many rows as a slow report would walk before somebody pulls the plug.
_ENDLESS = 2_000_000_000


def create(path: Path) -> None:
    """Make the database that the demo queries."""
    with sqlite3.connect(path) as database:
        database.execute("create table people (id integer, name text, email text, city text)")
        database.executemany("insert into people values (?, ?, ?, ?)", PEOPLE)
    database.close()


def main() -> None:
    """Serve until standard input is closed."""
    database = sqlite3.connect(sys.argv[1])
    tools = _tools(database)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" in message:
            token = message.get("params", {}).get("_meta", {}).get("progressToken")

            def notify(method: str, params: Json, token: object = token) -> None:
                _write({"method": method, "params": {"progressToken": token, **params}})

            _write(answer(message, "demo-database", tools, notify))
    database.close()


def _tools(database: sqlite3.Connection) -> dict[str, tuple[Json, Tool]]:
    sql = {"type": "object", "properties": {"sql": {"type": "string"}}, "required": ["sql"]}
    nothing = {"type": "object", "properties": {}}
    return {
        "query": (
            {"description": "Runs SQL.", "inputSchema": sql, "annotations": {}},
            lambda arguments, _: _query(database, arguments),
        ),
        "report": (
            {"description": "Counts for a very long time.", "inputSchema": nothing},
            lambda _, notify: _report(database, notify),
        ),
    }


def _query(database: sqlite3.Connection, arguments: Json) -> Json:
    """Run one statement; say which arguments arrived, so that the demo can see what did not."""
    try:
        with database:
            cursor = database.execute(arguments["sql"])
            columns = [column[0] for column in cursor.description or ()]
            rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchmany(1000)]
    except sqlite3.Error as exc:
        raise ToolFailed(f"SQLite says: {exc}") from exc
    return {
        "content": [{"type": "text", "text": json.dumps(rows)}],
        "structuredContent": {"rows": rows, "arguments": sorted(arguments)},
    }


def _report(database: sqlite3.Connection, notify: Notify) -> Json:
    notify("notifications/progress", {"progress": 1, "message": "counting"})
    counting = (
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?) "
        "select count(*) from n"
    )
    (count,) = database.execute(counting, (_ENDLESS,)).fetchone()
    return {"content": [{"type": "text", "text": str(count)}]}


def _write(message: Json) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
