"""How many replicas the SLO needs: observe, estimate, plan, actuate. Only `observe` does I/O."""
