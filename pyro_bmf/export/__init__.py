"""A posterior for other programs: ArviZ (the only module that knows it), netCDF and parquet."""
