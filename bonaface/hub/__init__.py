"""All that lives on the Hub."""
