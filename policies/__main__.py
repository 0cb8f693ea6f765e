"""Starts the policy pack: the engine runs this directory, see docs/policies.md."""

from tde_pack import main

main()
