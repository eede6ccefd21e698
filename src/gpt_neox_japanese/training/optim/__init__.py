"""AdamW and Muon, and which parameters each of them gets.

Start with `optimizer`; `muon` is the step for hidden matrices.
"""
