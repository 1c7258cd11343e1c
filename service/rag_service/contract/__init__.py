"""What the operator and the load check may know of the service: settings, wire shapes, load reports. No I/O."""
