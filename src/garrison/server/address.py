"""The address of a server, for messages."""

__all__ = ["url_of"]


def url_of(host: str, port: int, *, secure: bool = False, root_path: str = "") -> str:
    """The URL of a server by its settings: `http://127.0.0.1:8080`. Pure."""
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if secure else 'http'}://{shown}:{port}{root_path.rstrip('/')}"
