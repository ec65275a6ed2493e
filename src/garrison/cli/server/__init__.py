"""Commands of the server and its instances."""
