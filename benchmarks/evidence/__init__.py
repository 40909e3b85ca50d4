"""Evidence: the tables of the two source papers beside ours. One module a study; `study` runs them."""
