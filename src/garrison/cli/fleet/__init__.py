"""The commands that declare, apply and observe what targets serve."""
