"""What the steps of the train path call: learning, proving, releasing."""
