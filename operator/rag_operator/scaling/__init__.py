"""How many replicas the SLO needs: observe, estimate, plan, actuate."""
