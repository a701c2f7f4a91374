"""OAuth 2.1 as MCP asks (2025-03-26 to 2026-07-28, "Authorization"): what to ask, what to believe.

White: URLs, forms, claims and decisions are made here, out of what is handed in; who fetches,
signs and waits is ``client/authorizing/``. Whatever a peer sends is read totally: it is either
understood, left out, or refused with ``AuthenticationRequired``. Secrets stand in no ``repr``
and in no error.
"""
