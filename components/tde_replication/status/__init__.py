"""The live state of a cluster: asked from its servers, judged, and shown. It changes nothing."""
