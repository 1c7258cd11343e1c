"""HTTP: one module for each family of wire shapes. A route reads, calls one function of the service, and writes."""
