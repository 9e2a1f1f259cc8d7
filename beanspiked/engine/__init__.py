"""Tube engines: where jobs live and how their states change. Imports nothing of the server or the protocol."""
