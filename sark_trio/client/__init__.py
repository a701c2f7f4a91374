"""The façade: one client, its upstreams, and one call from top to bottom. Black."""
