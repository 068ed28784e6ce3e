"""What is sent: payloads, the requests drawn from them, and how answers are checked."""
