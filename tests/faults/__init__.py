"""What sbrpc promises, kept under faults: the real SDK, the emulator, and several processes."""
