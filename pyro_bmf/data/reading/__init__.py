"""From a file, or a table in memory, to raw columns: ids, ratings, times."""
