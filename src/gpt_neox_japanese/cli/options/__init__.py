"""What options are made of: their types, those that several commands share, help in sections."""
