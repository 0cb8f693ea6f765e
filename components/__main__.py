"""Pulumi runs this directory as a plugin: see PulumiPlugin.yaml."""

from tde_replication.remote import serve

if __name__ == "__main__":
    serve()
