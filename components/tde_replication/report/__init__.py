"""The state of a cluster as one HTML page, for people who know none of this."""
