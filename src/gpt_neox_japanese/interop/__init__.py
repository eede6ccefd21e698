"""The files of other programs, read and written; imported by nobody but the command line.

neox_checkpoints   checkpoints of EleutherAI/gpt-neox; neox_config is their configuration
"""
