"""Heads of requests and answers: what is read in them, and what is passed on. Pure."""
