"""Files that come from outside or must outlast a crash: JSON, tensors, results.

`json_files` and `tensor_files` read what a stranger may have made; `outputs` and `atomic` write.
"""
