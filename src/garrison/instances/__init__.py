"""Instances: named engines that Garrison starts, watches, puts to sleep and stops on this machine.

`values` are what is declared and what is known, `room` decides without effects who may run and who makes room, and the
manager carries that out through the seam `runner`. HTTP, keys and the fleet of adapters are not known here.
"""
