"""Self-supervised pretraining on the unlabeled pool: recipes, views, the trainer, its checkpoint, probe and picture."""
