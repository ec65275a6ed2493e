"""What a request uses, and what is kept of it until it is reported."""
