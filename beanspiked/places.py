"""How a host and a port are written."""

__all__ = ["host_port"]


def host_port(host: str, port: int) -> str:
    """Write a host and a port as they stand in a URL: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
