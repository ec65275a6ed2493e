"""What is shown of the fleet: status, drift, inventory, queries. Reads the record and observes; writes nothing."""
