"""The command line: ``sark``. A thin shell over the client."""
