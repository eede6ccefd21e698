"""Files that come from outside or must outlast a crash: JSON, tensors, results.

`model_directory` finds a model, on the Hub too; `model_config` judges its `config.json`.
`json_files` and `tensor_files` read what a stranger may have made, and `regular_files` says which
names and files of his are taken; `atomic` writes so that a crash leaves no half of a file;
`outputs` looks after the place that `--output` names, with a lock of `locks`;
`run_records` names what a run leaves there beside its model.
"""
