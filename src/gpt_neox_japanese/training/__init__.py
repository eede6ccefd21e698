"""From a corpus to a trained model: token shards, the run, its checkpoints."""
