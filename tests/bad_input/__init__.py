"""Bad input, as a table: what is sent, and the exact status, counts and errors that it must give."""
