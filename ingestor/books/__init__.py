"""Books: what sequence numbers, snapshots and proofs make of book updates."""
