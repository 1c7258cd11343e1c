"""The Kubernetes API of the project: types, conditions, and the CRD that is generated from them."""
