"""An S3 server that is no bottleneck: lists a directory, and sends files by sendfile, in ranges where asked.

moto's server, which the tests use, copies the whole object in Python for every range; it would be what is measured.
"""

from pathlib import Path
from xml.sax.saxutils import escape

from aiohttp import web

__all__ = ["serve"]


def serve(root: Path, port: int) -> None:
    """Serve `root/BUCKET/KEY` on loopback until killed."""
    app = web.Application()
    app.router.add_get("/{bucket}", lambda request: _list(root, request))
    app.router.add_get("/{bucket}/{key:.*}", lambda request: _get(root, request))
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, handle_signals=False)


async def _list(root: Path, request: web.Request) -> web.Response:
    bucket = root / request.match_info["bucket"]
    prefix = request.query.get("prefix", "")
    entries = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>{escape(_etag(path))}</ETag><Size>{path.stat().st_size}</Size></Contents>"
        for path in sorted(bucket.rglob("*"))
        if path.is_file() and (key := path.relative_to(bucket).as_posix()).startswith(prefix)
    )
    body = f"<ListBucketResult><Name>{bucket.name}</Name><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
    return web.Response(text=body, content_type="application/xml")


async def _get(root: Path, request: web.Request) -> web.StreamResponse:
    path = root / request.match_info["bucket"] / request.match_info["key"]
    return web.FileResponse(path) if path.is_file() else web.Response(status=404)


def _etag(path: Path) -> str:
    """As aiohttp makes it for a file, so that If-Match holds."""
    status = path.stat()
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
