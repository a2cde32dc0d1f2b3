"""Commands of runs: listing, requests, branches, and how a run is resumed."""
