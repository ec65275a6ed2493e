"""`garrison instance`: one module a group of commands."""
