"""Many requests on one network: start with `engine`, then `scheduler`."""
