"""What the steps of the deploy flow call: from an approved version to a healthy fleet, or back."""
