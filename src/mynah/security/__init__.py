"""Who may connect: tokens, owners, and the certificate of the server."""
