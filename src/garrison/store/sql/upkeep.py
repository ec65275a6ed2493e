"""The identity of the database, and digests on record."""

from sqlalchemy import Connection, insert, select, update

from garrison.store.sql.schema import contents, meta

__all__ = ["content", "identity", "put_content"]


def identity(connection: Connection) -> str:
    return str(connection.execute(select(meta.c.identity)).scalar_one())


def content(connection: Connection, path: str, stamp: str) -> str | None:
    query = select(contents.c.digest).where(contents.c.path == path, contents.c.stamp == stamp)
    return connection.execute(query).scalar_one_or_none()


def put_content(connection: Connection, path: str, stamp: str, digest: str) -> None:
    values = {"stamp": stamp, "digest": digest}
    if not connection.execute(update(contents).where(contents.c.path == path).values(values)).rowcount:
        connection.execute(insert(contents).values(path=path, **values))
