"""The paper's tables and figures: what is compared, how it is tuned, how its cells are run and shown."""
