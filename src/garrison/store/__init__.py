"""What Garrison remembers: stacks, targets, resources, observations, commands, leases, events.

Values are in `records`, the seam in `fleet_store`, its implementation in `sql`.
"""
