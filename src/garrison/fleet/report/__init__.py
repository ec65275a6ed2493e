"""Reports on the fleet: status, drift, inventory and queries. Reads the store and observes targets; writes nothing."""
