"""The feature cache and the run store: keys, layout, writing, reading, verification. Knows arrays, not networks."""
