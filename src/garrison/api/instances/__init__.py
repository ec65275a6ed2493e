"""Instances: their JSON, their routes, their logs."""
