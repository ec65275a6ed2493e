"""The store on SQLite or PostgreSQL. `store.open_store` is the way in; a file a noun holds its queries."""
