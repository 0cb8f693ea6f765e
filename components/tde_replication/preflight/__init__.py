"""What machines, servers and Vault have against a plan: asked before anything is touched, and told all at once."""
