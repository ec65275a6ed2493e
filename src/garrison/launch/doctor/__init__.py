"""Checks of this machine, with a remedy for each failure: facts are gathered in `machine`, judged in `report`."""
