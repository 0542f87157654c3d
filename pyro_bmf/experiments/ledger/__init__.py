"""The ledger: what the paper prints and says, beside what was run."""
