"""Settings and keys as the workers are told them. Pure."""

import hashlib
import socket
from pathlib import Path

from garrison.access.book import KeyBook
from garrison.base.settings import Settings
from garrison.gateway.link import messages

__all__ = ["told_keys", "told_settings", "via_of"]


def via_of(secret: bytes, control_socket: Path) -> str:
    """Return a word that tells this server from all others, also those that share its keys, and tells no more."""
    place = f"{socket.gethostname()}\0{control_socket}".encode()
    return "garrison-" + hashlib.blake2b(place, digest_size=8, key=secret, person=b"garrison-via").hexdigest()


def told_settings(values: Settings, address: tuple[str, int], control_socket: Path, via: str) -> messages.Settings:
    """Return the settings of a worker that listens at `address`."""
    return messages.Settings(
        host=address[0],
        port=address[1],
        control_socket=str(control_socket),
        via=via,
        tls_cert=None if values.tls_cert_file is None else str(values.tls_cert_file.absolute()),
        tls_key=None if values.tls_key_file is None else str(values.tls_key_file.absolute()),
        open_inference=not values.require_inference_auth,
        open_management=not values.require_management_auth,
        max_body_bytes=values.max_body_mib * 2**20,
        drain_seconds=values.drain_timeout,
        start_queue=values.start_queue,
        start_timeout=values.on_demand_start_timeout,
        forwarded=values.forwarded_headers,
        loading_comments=values.loading_comments,
        report_requests=bool(values.gateway_activity or values.gateway_access_log or values.gateway_traces),
        stream_usage=values.gateway_stream_usage,
        captures=values.gateway_captures,
        traces=None if values.gateway_traces is None else values.gateway_traces_percent / 100,
        capture_bytes=values.gateway_capture_kib * 1024,
    )


def told_keys(book: KeyBook, secret: bytes, config_keys: tuple[str, ...]) -> messages.Keys:
    """Return all keys. `secret`: with which tokens are digested; `config_keys`: those of the settings."""
    return messages.Keys(secret=secret, config_keys=config_keys, revision=book.revision, rows=list(book.rows.values()))
