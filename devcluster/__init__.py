"""A throwaway Kubernetes cluster of the real components, from source, without a registry."""
