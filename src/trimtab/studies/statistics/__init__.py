"""Pure statistics of scores over seeds: numbers in, numbers out. numpy and scipy only."""
