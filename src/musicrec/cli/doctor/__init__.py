"""What works here, what does not, and the fix. Looking never starts, makes or changes anything."""
