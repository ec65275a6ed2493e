"""Commands on keys, and the calls that they make."""
