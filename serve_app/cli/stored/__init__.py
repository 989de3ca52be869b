"""Commands on what a server's store holds, whether that server runs now or not."""
