"""Stand-ins for Pulumi's resource plugins."""

import gc

gc.set_threshold(1_000_000)  # most of a short run is imports, and a tenth of theirs was to look for garbage
