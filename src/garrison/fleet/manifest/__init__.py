"""The manifest: what a fleet of vLLM servers shall serve, from a file to a `Declaration` and back."""
