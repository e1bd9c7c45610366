"""The steps from an empty schema to the tables of today, one file in ``versions`` each."""
