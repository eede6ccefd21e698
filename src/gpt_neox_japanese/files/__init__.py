"""Files that come from outside or must outlast a crash: JSON, tensors, results.

Start with `model_directory`, the one way from a name to a model's files. `json_files` and
`tensor_files` read what a stranger may have made; `outputs` and `atomic` write.
"""
