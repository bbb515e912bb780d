"""What people look at: the Metaflow cards of the train flow."""
