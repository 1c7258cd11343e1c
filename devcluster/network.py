"""Addresses inside a node's network. Each node has a network namespace of its own, so clusters may share them."""

NODE_NAME = "node1"
NODE_ADDRESS = "10.10.0.1"
NODE_PREFIX = 24
POD_SUBNET = "10.244.0.0/24"
SERVICE_SUBNET = "10.96.0.0/16"
# The first of the service subnet: the Service `kubernetes` in the namespace default.
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = NODE_ADDRESS
CLUSTER_DOMAIN = "cluster.local"
LOOPBACK = "127.0.0.1"
