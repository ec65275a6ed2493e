"""Engines in containers: what is declared, the command that runs it, and the seam to docker and podman."""
