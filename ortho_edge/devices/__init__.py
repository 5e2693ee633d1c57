"""Device profiles: what a device costs, where that is known from, and how a host is measured."""
