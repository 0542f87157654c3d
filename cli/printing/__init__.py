"""What a user sees: tables, files of tables, reports of a fit, and text made safe for a terminal."""
