"""Connections to upstreams: sockets, TLS, HTTP/1.1 and the body of the pool. Black."""
