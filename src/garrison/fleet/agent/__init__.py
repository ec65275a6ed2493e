"""The reconcile loop: looks at targets on their schedule, hands repairs over, writes what was seen in batches."""
