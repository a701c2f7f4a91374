"""Signing in to MCP servers behind OAuth: fetches, signs, waits and keeps what ``auth`` decides."""
