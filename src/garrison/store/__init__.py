"""What Garrison remembers: stacks, targets, resources, observations, commands, leases, events, keys.

Values are in `records`, the seam in `fleet_store`, its implementation in `sql`, its in-memory twin in
`garrison.testing.store`. What the JSON in the rows means is not known here.
"""
