"""Files that come from outside or must outlast a crash: JSON, tensors, results.

`json_files` and `tensor_files` read what a stranger may have made, and `regular_files` says which
names and files of his are taken; `atomic` writes so that a crash leaves no half of a file;
`outputs` looks after the place that `--output` names.
"""
