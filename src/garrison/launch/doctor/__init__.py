"""Checks of this machine, with a remedy for each failure. `machine` collects the facts, `report` judges them."""
