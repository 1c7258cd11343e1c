"""A throwaway Kubernetes cluster on one Linux machine, built from the components' own Go modules."""
