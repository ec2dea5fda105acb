"""An example's bytes: a file, a row of a table, or an object of a bucket."""
