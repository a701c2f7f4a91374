"""``sark demo``: the whole product at work on real servers, in half a minute."""
