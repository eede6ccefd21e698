"""Writing text: `sampling` chooses an id, `engine` writes ids one after the other, `text` makes them readable."""
