"""The store on SQLite or PostgreSQL. Open it with `store.open_store`. The queries of each noun are in a file of their
own, and get a connection; transactions begin and end in `store`."""
