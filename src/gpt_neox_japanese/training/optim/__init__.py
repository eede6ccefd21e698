"""AdamW and Muon, and which parameters each of them gets."""
