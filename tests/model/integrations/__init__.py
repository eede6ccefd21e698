"""The model with what others build on transformers: trainers, PEFT, parallelism, observers."""
