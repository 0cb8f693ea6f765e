"""What a test cluster's program tells of it, in a file beside itself."""

FILE = "outputs.json"
NAMES = ("primary_dsn", "standby_dsns", "read_write_dsn", "read_only_dsn", "vault", "encryption", "summary")
