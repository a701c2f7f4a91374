"""The client's methods, one file for each topic; :class:`GatewayClient` is all of them."""
