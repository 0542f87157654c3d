"""Commands that check a fit: what its posterior holds, and which items to ask about next."""
