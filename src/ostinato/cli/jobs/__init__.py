"""Commands of refine jobs: `refine`, `check` and `why`."""
