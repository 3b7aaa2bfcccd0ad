"""The three stages: embed (images to features), al (features to run logs), surrogate (run logs to a model)."""
