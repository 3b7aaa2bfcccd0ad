"""Stage one: images -> frozen backbone -> features in the cache."""
