"""Connections: those of clients, those to targets, and the requests that are passed on as they are."""
