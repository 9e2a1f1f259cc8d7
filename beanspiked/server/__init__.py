"""The server: connections, sessions, the broker between them and a tube engine, listeners and signals."""
