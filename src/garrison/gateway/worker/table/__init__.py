"""What there is, as the control process has told it: routes, targets, callers, and what each carries."""
